"""What belongs to a picture is in its output, whole or not at all."""

import io
import json
import shutil
import subprocess
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging import tiff
from nsarm_cli.imaging.formats import output_format
from nsarm_cli.imaging.layout import finish, layout_for
from nsarm_cli.imaging.metadata import NOTHING, is_ours
from nsarm_cli.imaging.output import write_picture
from nsarm_cli.imaging.picture import Picture, read_picture

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (150, 30, 4)).astype(np.uint16)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="field"/></rdf:RDF></x:xmpmeta>'
)


def source(tmp_path, channels, bits):
    pixels = DEEP[..., :channels] if channels > 1 else DEEP[..., 0]
    path = tmp_path / f"source_{channels}_{bits}.png"
    if bits == 16:
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    else:
        Image.fromarray((pixels // 257).astype(np.uint8)).save(path)
    return path


def copy(path, target, settings=None, **options):
    """Write a picture at its own size, as if a model had changed nothing."""
    picture = read_picture(path)
    layout, lost = layout_for(picture, picture.width, picture.height, output_format(target))
    if settings is not None:
        layout = replace(layout, metadata=layout.metadata.with_settings(settings))
    strips = finish(picture, picture.rows(), layout)
    write_picture(target, layout, strips, overwrite=True, **options)
    return picture, read_picture(target), lost


def photo(icc, tmp_path, name="photo.jpg", **options):
    """A photograph with everything that a camera writes, lying on its side."""
    exif = Image.Exif()
    exif.update({271: "Maker", 272: "Model", 274: 6, 315: "Someone"})
    exif.get_ifd(34665).update({36867: "2024:01:02 03:04:05", 40962: 90, 34855: 200})
    exif.get_ifd(34853).update({1: "N", 2: (47.0, 30.0, 15.0)})
    smooth = Image.fromarray(RNG.integers(60, 200, (3, 5, 3), dtype=np.uint8)).resize((90, 60))
    path = tmp_path / name
    smooth.save(
        path, exif=exif, dpi=(300, 150), xmp=XMP, icc_profile=icc.wide, quality=95, **options
    )
    return path


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    ("channels", "bits"), [(1, 8), (2, 8), (3, 8), (4, 8), (1, 16), (3, 16), (4, 16)]
)
def test_lossless_formats_keep_pixels_and_alpha_exactly(tmp_path, ending, bits, channels):
    path = source(tmp_path, channels, bits)
    before, after, lost = copy(path, tmp_path / f"out.{ending}")
    assert lost == []
    assert after.bits == before.bits == bits
    visible = slice(None) if before.alpha is None else before.alpha > 0
    assert np.array_equal(after.pixels[visible], before.pixels[visible])
    if channels in (2, 4):
        assert np.array_equal(after.alpha, before.alpha)
    else:
        assert after.alpha is None


def test_sixteen_bit_grey_with_alpha_is_written(tmp_path):
    """Few programs read it; Pillow and imagecodecs know no way to make such a file."""
    picture = Picture(DEEP[..., :1], DEEP[..., 1], None, NOTHING)
    for name in ("a.png", "a.tif"):
        layout, _ = layout_for(picture, 30, 150, output_format(tmp_path / name))
        strips = finish(picture, picture.rows(), layout)
        write_picture(tmp_path / name, layout, strips, overwrite=False)
    visible = DEEP[..., 1] > 0
    png = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    for pixels in (png, tifffile.imread(tmp_path / "a.tif")):
        assert np.array_equal(pixels[visible], DEEP[..., :2][visible])
    assert np.array_equal(read_picture(tmp_path / "a.png").alpha, DEEP[..., 1])


def test_colours_beyond_srgb_are_kept(icc, tmp_path):
    """Photographs of phones are in Display P3."""
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    Image.fromarray(green).save(tmp_path / "a.png", icc_profile=icc.wide)
    _, after, _ = copy(tmp_path / "a.png", tmp_path / "b.png")
    assert np.abs(after.pixels.astype(int) - green).max() <= 1


@pytest.mark.parametrize("ending", ["jpg", "webp", "avif"])
def test_what_a_format_cannot_hold_is_named(tmp_path, ending):
    _, after, lost = copy(source(tmp_path, 4, 16), tmp_path / f"out.{ending}")
    assert "its 16 bits per channel become 8" in lost
    assert ("its transparent parts become white" in lost) is (ending == "jpg")
    assert after.bits == 8
    assert (after.alpha is None) is (ending == "jpg")


def test_transparent_parts_of_a_jpeg_are_white(tmp_path):
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a.png")
    _, after, _ = copy(tmp_path / "a.png", tmp_path / "a.jpg")
    assert after.pixels.min() >= 254


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "avif"])
def test_metadata_come_along_upright(icc, tmp_path, ending):
    before, after, _ = copy(photo(icc, tmp_path), tmp_path / f"out.{ending}")
    assert (after.width, after.height) == (60, 90)
    assert np.abs(after.pixels.astype(int) - before.pixels).mean() < 3
    assert after.profile.data == icc.wide
    assert after.metadata.exif.get(274, 1) == 1
    assert after.metadata.exif[315] == "Someone"
    assert after.metadata.camera[36867] == "2024:01:02 03:04:05"
    assert after.metadata.camera[40962] == 60
    assert after.metadata.place[2] == (47.0, 30.0, 15.0)
    assert after.metadata.dpi == pytest.approx((150, 300), abs=0.1)
    assert b'dc:source="field"' in after.metadata.xmp
    assert b'tiff:Orientation="1"' in after.metadata.xmp


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "avif"])
def test_settings_are_recorded_beside_what_was_there(icc, tmp_path, ending):
    path = photo(icc, tmp_path)
    once = tmp_path / f"once.{ending}"
    copy(path, once, settings={"seed": 7, "odd": "<\"'&>é"})
    copy(once, tmp_path / f"twice.{ending}", settings={"seed": 8})
    for name, count in (("once", 7), ("twice", 8)):
        with Image.open(tmp_path / f"{name}.{ending}") as image:
            assert is_ours(image)
        xmp = read_picture(tmp_path / f"{name}.{ending}").metadata.xmp
        assert xmp.count(b"nsarm:Settings") == 1
        assert f"&quot;seed&quot;: {count}".encode() in xmp.replace(b'"', b"&quot;")
        assert b'dc:source="field"' in xmp
    with Image.open(path) as image:
        assert not is_ours(image)


def test_grey_profiles_are_kept(icc, tmp_path):
    Image.fromarray((DEEP[..., 0] // 257).astype(np.uint8)).save(
        tmp_path / "a.png", icc_profile=icc.grey
    )
    before, after, _ = copy(tmp_path / "a.png", tmp_path / "b.png")
    assert after.is_grey
    assert after.profile.data == icc.grey
    assert np.abs(after.pixels.astype(int) - before.pixels).max() <= 1


def test_quality_changes_the_size(icc, tmp_path):
    path = photo(icc, tmp_path)
    for ending in ("jpg", "webp", "avif"):
        sizes = []
        for quality in (20, 95):
            target = tmp_path / f"{quality}.{ending}"
            copy(path, target, quality=quality)
            sizes.append(target.stat().st_size)
        assert sizes[0] < sizes[1]


def test_a_large_tiff_is_a_big_tiff(icc, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_CLASSIC_LIMIT", 1000)
    before, _, _ = copy(photo(icc, tmp_path), tmp_path / "big.tif")
    data = (tmp_path / "big.tif").read_bytes()
    assert data[:4] == b"II+\0"
    assert np.array_equal(tifffile.imread(io.BytesIO(data)).shape, (90, 60, 3))
    again = read_picture(tmp_path / "big.tif")
    assert np.abs(again.pixels.astype(int) - before.pixels).max() <= 3
    assert again.metadata.camera[36867] == "2024:01:02 03:04:05"


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    picture = read_picture(source(tmp_path, 3, 8))
    target = tmp_path / "out" / "a.png"
    target.parent.mkdir()
    layout, _ = layout_for(picture, picture.width, picture.height, output_format(target))

    def broken():
        yield from list(finish(picture, picture.rows(), layout))[:1]
        raise KeyboardInterrupt

    for name in ("a.png", "a.tif", "a.jpg"):
        with pytest.raises(KeyboardInterrupt):
            write_picture(target.with_name(name), layout, broken(), overwrite=False)
    assert list(target.parent.iterdir()) == []


def test_a_picture_that_a_format_cannot_hold_is_refused_before_work(tmp_path):
    picture = read_picture(source(tmp_path, 3, 8))
    for name, side in (("a.webp", 16384), ("a.jpg", 65501), ("a.jpg", 20001), ("a.avif", 12500)):
        target = tmp_path / name
        layout, _ = layout_for(picture, side, side, output_format(target))
        with pytest.raises(ImageError, match=r"too large for .*; write \.png or \.tif instead"):
            write_picture(target, layout, iter(()), overwrite=False)


def test_exiftool_reads_back_what_was_kept(icc, tmp_path):
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    path = photo(icc, tmp_path)
    names = [f"out.{ending}" for ending in ("png", "tif", "jpg", "webp", "avif")]
    for name in names:
        copy(path, tmp_path / name, settings={"seed": 7})
    command = ["exiftool", "-json", "-n", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, check=True)
    for read in json.loads(done.stdout):
        assert read["Artist"] == "Someone"
        assert read["DateTimeOriginal"] == "2024:01:02 03:04:05"
        assert read["ISO"] == 200
        assert read["GPSLatitude"] == pytest.approx(47.504166, abs=1e-5)
        assert (read["ImageWidth"], read["ImageHeight"]) == (60, 90)
        assert read.get("Orientation", 1) == 1
        assert read["Source"] == "field"
        assert json.loads(read["Settings"]) == {"seed": 7}
        assert read["ColorSpaceData"].strip() == "RGB"
        assert "Error" not in read


def test_imagemagick_sees_the_same_pixels(tmp_path):
    if shutil.which("convert") is None:
        pytest.skip("ImageMagick is not installed")
    for ending in ("png", "tif"):
        target = tmp_path / f"out.{ending}"
        before, _, _ = copy(source(tmp_path, 3, 16), target)
        command = ["convert", str(target), "-depth", "16", "-endian", "LSB", "rgb:-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        assert np.array_equal(np.frombuffer(raw, "<u2").reshape(150, 30, 3), before.pixels)


def test_an_srgb_profile_changes_no_pixel(icc, tmp_path):
    pixels = (DEEP[..., :3] // 257).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=icc.srgb)
    _, after, _ = copy(tmp_path / "a.png", tmp_path / "b.png")
    assert np.array_equal(after.pixels, pixels)
    assert after.profile.data == icc.srgb
