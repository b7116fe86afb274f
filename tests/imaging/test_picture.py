"""Pictures are read as their files have them."""

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.picture import read_picture
from nsarm_cli.imaging.tensors import to_tensor

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (12, 20, 4)).astype(np.uint16)


def stored(tmp_path, name, image, **options):
    path = tmp_path / name
    image.save(path, **options)
    return read_picture(path)


def joined(rows):
    return torch.cat(list(rows.strips), dim=1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_eight_bits_are_read_exactly(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    picture = stored(tmp_path, name, Image.fromarray(RGB), **options)
    assert np.array_equal(picture.pixels, RGB)
    assert (picture.bits, picture.is_grey, picture.alpha, picture.notes) == (8, False, None, ())
    assert torch.equal(joined(picture.rows()), to_tensor(Image.fromarray(RGB)))


def test_avif_and_heic_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.register_heif_opener()
    smooth = Image.fromarray(RGB[:3, :5]).resize((80, 48))
    for name in ("a.avif", "a.heic"):
        picture = stored(tmp_path, name, smooth, quality=95)
        assert np.abs(picture.pixels.astype(int) - np.asarray(smooth)).mean() < 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_read_exactly_from_png(tmp_path, channels):
    deep = DEEP[..., 0] if channels == 1 else DEEP[..., :channels]
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(deep)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.bits == 16
    assert picture.is_grey is (channels == 1)
    assert np.array_equal(picture.pixels, DEEP[..., : min(channels, 3)])
    assert (picture.alpha is None) is (channels < 4)
    if channels == 4:
        assert np.array_equal(picture.alpha, DEEP[..., 3])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bits_are_read_exactly_from_tiff(tmp_path, compression, planar):
    data = DEEP if planar == "contig" else np.moveaxis(DEEP, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.ascontiguousarray(data),
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        extrasamples=["unassalpha"],
        metadata=None,
    )
    picture = read_picture(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels, DEEP[..., :3])
    assert np.array_equal(picture.alpha, DEEP[..., 3])


def test_white_is_zero_and_premultiplied_alpha_are_undone(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="miniswhite")
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], 65535 - DEEP[..., 0])
    half = np.full((4, 5, 4), 10000, np.uint16)
    half[..., 3] = 32768
    tifffile.imwrite(tmp_path / "b.tif", half, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read_picture(tmp_path / "b.tif").pixels.astype(int) - 20000).max() < 2


def test_grey_and_its_alpha_stay_grey(tmp_path):
    grey = stored(tmp_path, "a.png", Image.fromarray(RGB).convert("L"))
    assert (grey.is_grey, grey.pixels.shape, grey.alpha) == (True, (12, 20, 1), None)
    both = stored(tmp_path, "b.png", Image.fromarray(RGB[..., :2], "LA"))
    assert np.array_equal(both.pixels[..., 0], RGB[..., 0])
    assert np.array_equal(both.alpha, RGB[..., 1])
    assert joined(grey.rows()).shape == (3, 12, 20)


def test_palettes_and_colour_keys_are_looked_up(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(
        stored(tmp_path, "a.png", palette).pixels, np.asarray(palette.convert("RGB"))
    )
    keyed = stored(tmp_path, "b.png", Image.fromarray(RGB), transparency=tuple(map(int, RGB[0, 0])))
    assert keyed.alpha[0, 0] == 0
    assert keyed.alpha[-1, -1] == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "deep png", "deep tiff"])
def test_a_picture_is_turned_as_its_orientation_asks(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind.split()[-1]}"
    if kind == "deep tiff":
        tag = [(274, 3, 1, orientation, True)]
        deep = RGB.astype(np.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", extratags=tag, metadata=None)
    elif kind == "deep png":
        pytest.importorskip("imagecodecs")
        data = imagecodecs.png_encode(RGB.astype(np.uint16) * 257)
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = len(body).to_bytes(4, "big") + b"eXIf" + body
        chunk += imagecodecs.zlib_crc32(b"eXIf" + body).to_bytes(4, "big")
        path.write_bytes(data[:33] + chunk + data[33:])
    else:
        Image.fromarray(RGB).save(path, exif=exif, quality=100, subsampling=0)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    wanted = Image.fromarray(RGB)
    wanted = np.asarray(wanted if turn is None else wanted.transpose(turn)).astype(int)
    picture = read_picture(path)
    pixels = picture.pixels.astype(int) // (257 if picture.bits == 16 else 1)
    assert pixels.shape == wanted.shape
    assert np.abs(pixels - wanted).mean() < 3
    reset = picture.metadata.of_output(80, 48)
    assert reset.exif.get(274, 1) == 1


def test_a_profile_is_kept_and_used(icc, tmp_path):
    picture = stored(tmp_path, "a.png", Image.fromarray(RGB), icc_profile=icc.wide)
    assert picture.profile.data == icc.wide
    assert np.array_equal(picture.pixels, RGB)
    shown = joined(picture.rows())
    assert (shown - to_tensor(Image.fromarray(RGB))).abs().mean() > 0.01
    plain = stored(tmp_path, "b.png", Image.fromarray(RGB), icc_profile=icc.srgb)
    assert torch.equal(joined(plain.rows()), to_tensor(Image.fromarray(RGB)))


def test_a_wrong_profile_is_left_out_with_a_note(icc, tmp_path):
    for name, data in (("a.png", b"nonsense" * 40), ("b.png", icc.grey)):
        picture = stored(tmp_path, name, Image.fromarray(RGB), icc_profile=data)
        assert picture.profile is None
        assert "its colour profile is left out" in picture.notes[0]


def test_cmyk_becomes_srgb_and_says_so(tmp_path):
    ink = Image.fromarray(RGB).convert("CMYK")
    picture = stored(tmp_path, "a.tif", ink)
    assert np.array_equal(picture.pixels, np.asarray(ink.convert("RGB")))
    assert picture.notes == ("its CMYK colours become sRGB",)


def test_the_first_of_several_frames_is_taken_with_a_note(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(RGB[::-1])
    for name in ("a.webp", "a.png", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        picture = stored(tmp_path, name, first, save_all=True, append_images=[second], **options)
        assert np.array_equal(picture.pixels, RGB)
        assert picture.notes == ("has several frames or pages; the first is taken",)


def test_hidden_colours_do_not_reach_the_model(tmp_path):
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = (200, 180, 160, 255)
    picture = stored(tmp_path, "a.png", Image.fromarray(pixels))
    assert joined(picture.rows()).min() > 0.2
    assert joined(picture.alpha_rows()).shape == (1, 40, 40)


def test_numbers_without_a_known_white_are_refused(tmp_path):
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="32-bit numbers"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_truncated_sixteen_bits_are_refused(tmp_path, name, share):
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(imagecodecs.png_encode(DEEP))
    else:
        tifffile.imwrite(path, DEEP, photometric="rgb", compression="zlib")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"damaged|is not a"):
        read_picture(path)


def test_a_cmyk_profile_is_used(icc, tmp_path):
    source = "/usr/share/color/icc/ghostscript/default_cmyk.icc"
    try:
        with open(source, "rb") as file:  # noqa: PTH123
            data = file.read()
    except OSError:
        pytest.skip(f"there is no {source} here")
    ink = Image.fromarray(RGB).convert("CMYK")
    picture = stored(tmp_path, "a.tif", ink, icc_profile=data)
    wanted = ImageCms.profileToProfile(
        ink, source, ImageCms.createProfile("sRGB"), renderingIntent=0, outputMode="RGB"
    )
    assert np.abs(picture.pixels.astype(int) - np.asarray(wanted)).max() <= 2
    assert picture.profile is None
