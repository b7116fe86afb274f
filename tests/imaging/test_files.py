"""Pictures are found, read safely and written whole or not at all."""

import contextlib
import errno
import os
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, JpegImagePlugin

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging import opening
from nsarm_cli.imaging.files import (
    check_output,
    read_image,
    write_image,
)
from nsarm_cli.imaging.finding import find_images
from nsarm_cli.imaging.formats import check_size

IS_ROOT = os.name == "posix" and os.geteuid() == 0
resource = pytest.importorskip("resource") if os.name == "posix" else None

ODD_NAMES = [
    "two words.png",
    "[red]not a tag[bold].png",
    "a[0-9]*?.png",
    "größe 写真.png",
    "-o.png",
]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def save(path: Path, **options: object) -> Path:
    PICTURE.save(path, **options)
    return path


def refused(path: Path, reason: str):
    """Expect one sentence of the file, this reason and a remedy."""
    return pytest.raises(ImageError, match=rf"^{re.escape(str(path))}: [^\n]*{reason}[^\n]*; .+$")


def png(width: int, height: int, depth: int, kind: int, body: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Finding


def test_files_are_taken_as_given_in_the_order_given(tmp_path):
    paths = [save(tmp_path / "b.png"), tmp_path / "a.data"]
    paths[1].touch()
    assert find_images(paths) == paths


def test_a_folder_stands_for_its_pictures_sorted_by_name(tmp_path):
    for name in ("c.PNG", "b.jpeg", "a.webp", "d.tiff", "e.bmp", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "deep.png").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = [path.name for path in find_images([tmp_path])]
    assert found == ["a.webp", "b.jpeg", "c.PNG", "d.tiff", "e.bmp"]


def test_a_picture_given_twice_is_found_once(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = [Path("b.png"), Path("./b.png"), tmp_path, tmp_path / "link" / "a.png", Path("b.png")]
    assert find_images(given) == [Path("b.png"), tmp_path / "a.png"]


def test_two_links_to_one_picture_are_two_pictures(tmp_path):
    first = save(tmp_path / "a.png")
    second = tmp_path / "b.png"
    second.symlink_to(first)
    assert find_images([tmp_path]) == [first, second]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_found_read_and_written(tmp_path, name):
    path = save(tmp_path / name)
    assert find_images([path]) == [path]
    target = tmp_path / "out" / name
    check_output(target, path, overwrite=False)
    write_image(read_image(path), target, overwrite=False)
    assert np.array_equal(np.asarray(read_image(target)), PIXELS)
    assert names_in(target.parent) == [name]


def test_a_missing_input_is_refused(tmp_path):
    path = tmp_path / "gone.png"
    for action in (lambda: find_images([path]), lambda: read_image(path)):
        with refused(path, "no such file or folder"):
            action()


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with refused(tmp_path, "holds no pictures"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match=r"known endings are \.png .*, and look elsewhere$"):
        find_images([tmp_path], "look elsewhere")


def test_an_impossible_name_is_refused():
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(ImageError, match="cannot be read"):
            find_images([Path(name)])


# Reading


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.bmp", "x.tif"])
def test_a_lossless_picture_is_read_exactly(tmp_path, name):
    image = read_image(save(tmp_path / name, **({"lossless": True} if "webp" in name else {})))
    assert image.mode == "RGB"
    assert image.info == {}
    assert np.array_equal(np.asarray(image), PIXELS)


def test_the_content_tells_the_format_not_the_name(tmp_path):
    path = save(tmp_path / "really_a_png.jpg", format="PNG")
    assert np.array_equal(np.asarray(read_image(path)), PIXELS)


def shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Say where row 0 and column 0 of the file belong, from the Exif standard."""
    mirrored = stored.swapaxes(0, 1)
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: mirrored,
        6: mirrored[:, ::-1],
        7: mirrored[::-1, ::-1],
        8: mirrored[::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}),
        ("x.tif", {}),
        ("x.tiff", {"compression": "tiff_lzw"}),
        ("x.webp", {"lossless": True}),
        ("x.jpg", {"quality": 100, "subsampling": 0}),
    ],
)
def test_a_picture_is_turned_upright_once(tmp_path, name, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / name, exif=exif, **options)
    image = read_image(path)
    difference = np.asarray(image).astype(int) - shown(PIXELS, orientation)
    assert np.abs(difference).max() <= (4 if name == "x.jpg" else 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0XX*\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\0"]
)
@pytest.mark.parametrize("name", ["x.png", "x.webp"])
def test_damaged_metadata_does_not_spoil_a_picture(tmp_path, name, exif):
    path = save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
    assert np.array_equal(np.asarray(read_image(path)), PIXELS)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    others = [Image.new("RGB", PICTURE.size, color) for color in ("red", "blue")]
    for name, options in (("x.png", {}), ("x.webp", {"lossless": True}), ("x.tif", {})):
        path = save(tmp_path / name, save_all=True, append_images=others, **options)
        assert np.array_equal(np.asarray(read_image(path)), PIXELS)


def test_a_phone_picture_with_two_views_is_read(tmp_path):
    path = save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[PICTURE])
    assert read_image(path).size == PICTURE.size


def test_sixteen_bit_colour_is_read_as_eight(tmp_path):
    path = tmp_path / "x.png"
    row = struct.pack(">6H", 0, 257 * 100, 65535, 257 * 7, 257 * 8, 257 * 9)
    path.write_bytes(png(2, 1, 16, 2, b"\0" + row))
    assert np.asarray(read_image(path)).tolist() == [[[0, 100, 255], [7, 8, 9]]]


def test_sixteen_bit_grey_is_read_as_eight(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 257 * 3, 65535)))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [3, 255]


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "x.png"
    path.touch()
    with refused(path, "is empty"):
        read_image(path)


@pytest.mark.parametrize(
    "content",
    [
        b"This is a text file.\n",
        b"GIF89a\x01\0\x01\0\0\0\0;",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        png(0, 5, 8, 2, b""),
        b"\0" * 100,
    ],
    ids=["text", "gif", "postscript", "no width", "zeros"],
)
def test_what_is_not_a_known_picture_is_refused(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with refused(path, "is not a PNG, JPEG, WebP, AVIF, BMP or TIFF picture"):
        read_image(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.bmp", "x.tif"])
def test_a_truncated_picture_is_refused(tmp_path, name, share):
    path = save(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=r"^[^\n]*x\.\w+: [^\n]*(damaged|cut short)[^\n]*; .+$"):
        read_image(path)


def test_random_damage_never_shows_a_traceback(tmp_path):
    """Only ImageError may leave `read_image`, whichever bytes are changed."""
    rng = np.random.default_rng(1)
    for name in ("x.png", "x.jpg", "x.webp", "x.bmp"):
        path = save(tmp_path / name)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(30):
            damaged = content.copy()
            places = rng.integers(0, min(200, len(content)), 3)
            damaged[places] = rng.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(ImageError):
                assert read_image(path).mode == "RGB"


def test_a_folder_or_pipe_is_not_read(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with refused(path, "is not a file"):
            read_image(path)


@pytest.mark.skipif(IS_ROOT, reason="permissions do not bind root")
def test_a_file_without_permission_is_refused(tmp_path):
    path = save(tmp_path / "x.png")
    path.chmod(0)
    with refused(path, "Permission denied"):
        read_image(path)


def test_a_disk_that_fails_is_reported_with_its_reason(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with refused(path, "Input/output error"):
        read_image(path)


@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_bomb_is_refused_before_decoding(tmp_path, monkeypatch, pillows_limit):
    """800 megapixels, and again with Pillow's own limit lifted."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(40_000, 20_000, 8, 2, b"\0" * 1000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with refused(path, "more than 178 megapixels"):
        read_image(path)


def test_the_limit_on_pixels_is_exact(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png")
    monkeypatch.setattr(opening, "MAX_PIXELS", PICTURE.width * PICTURE.height)
    assert read_image(path).size == PICTURE.size
    monkeypatch.setattr(opening, "MAX_PIXELS", PICTURE.width * PICTURE.height - 1)
    with refused(path, "megapixels"):
        read_image(path)


def test_a_large_picture_below_the_limit_is_read_without_warnings(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 0.6 * PICTURE.width * PICTURE.height)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == PICTURE.size


def test_a_picture_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png")

    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with refused(path, "does not fit in memory"):
        read_image(path)


# Checking


def test_the_source_is_never_an_output(tmp_path):
    source = save(tmp_path / "a.png")
    other = save(tmp_path / "b.png")
    soft, hard = tmp_path / "soft.png", tmp_path / "hard.png"
    soft.symlink_to(source)
    hard.hardlink_to(source)
    roundabout = tmp_path / "." / "sub" / ".." / "a.png"
    (tmp_path / "sub").mkdir()
    for path in (source, soft, hard, roundabout):
        with refused(path, "is the input"):
            check_output(path, source, overwrite=True)
        with refused(path, "is the input"):
            check_output(path, [other, source], overwrite=True)
    check_output(other, source, overwrite=True)


def test_an_existing_output_needs_overwrite(tmp_path):
    source, existing = save(tmp_path / "a.png"), save(tmp_path / "a_x4.png")
    dangling = tmp_path / "b_x4.png"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (existing, dangling):
        with refused(path, "exists already"):
            check_output(path, source, overwrite=False)
        check_output(path, source, overwrite=True)


def test_a_folder_is_not_an_output(tmp_path):
    folder = tmp_path / "a.png"
    folder.mkdir()
    with refused(folder, "is a folder"):
        check_output(folder, tmp_path / "x.png", overwrite=True)


def test_a_missing_folder_is_made_and_left_empty(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.png"
    check_output(path, tmp_path / "x.png", overwrite=False)
    assert names_in(path.parent) == []


def test_an_unknown_ending_is_refused(tmp_path):
    with refused(tmp_path / "a.gif", "ending .gif"):
        check_output(tmp_path / "a.gif", tmp_path / "x.png", overwrite=False)
    assert names_in(tmp_path) == []


def test_an_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file" / "a.png", "its folder is a file"),
        (tmp_path / "file" / "deeper" / "a.png", "Not a directory"),
    ):
        with refused(path, reason):
            check_output(path, tmp_path / "x.png", overwrite=False)


def test_too_long_a_name_is_refused_before_work(tmp_path):
    path = tmp_path / ("x" * 300 + ".png")
    with refused(path, "too long"):
        check_output(path, tmp_path / "x.png", overwrite=False)


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    check_output(path, tmp_path / "x.png", overwrite=False)
    write_image(PICTURE, path, overwrite=False)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.skipif(IS_ROOT, reason="permissions do not bind root")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with refused(tmp_path / "a.png", "Permission denied"):
        check_output(tmp_path / "a.png", Path("x.png"), overwrite=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_folder_that_takes_no_files_is_refused_even_for_root():
    with refused(Path("/proc/a.png"), "cannot be written"):
        check_output(Path("/proc/a.png"), Path("x.png"), overwrite=False)


@pytest.mark.parametrize(
    ("name", "limit"), [("a.jpg", 65500), ("a.jpeg", 65500), ("a.webp", 16383)]
)
def test_a_picture_too_large_for_its_format_is_refused(tmp_path, name, limit):
    path = tmp_path / name
    for width, height in ((limit + 1, 1), (1, limit + 1)):
        with refused(path, f"at most {limit} pixels a side"):
            check_size(path, width, height)
        with refused(path, f"at most {limit} pixels a side"):
            write_image(Image.new("RGB", (width, height)), path, overwrite=False)
    check_size(path, limit, 1000)
    check_size(tmp_path / "a.png", limit + 1, limit + 1)
    write_image(Image.new("RGB", (limit, 1)), path, overwrite=False)
    assert read_image(path).size == (limit, 1)


# Writing


def test_png_is_written_exactly(tmp_path):
    write_image(PICTURE, tmp_path / "a.PNG", overwrite=False)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.PNG")), PIXELS)
    assert names_in(tmp_path) == ["a.PNG"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_ending_decides_the_format(tmp_path, name, kind):
    smooth = PICTURE.resize((40, 24), Image.Resampling.BICUBIC, box=(0, 0, 4, 3))
    write_image(smooth, tmp_path / name, overwrite=False)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
        assert np.abs(np.asarray(image).astype(int) - np.asarray(smooth)).mean() < 3


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    write_image(PICTURE, tmp_path / "a.jpg", overwrite=False)
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    write_image(PICTURE, tmp_path / "a.png", overwrite=False)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def without_hard_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["hard links", "no hard links"])
def file_system(request, monkeypatch):
    """Run a test as on ext4, then as on FAT."""
    if request.param == "no hard links":
        monkeypatch.setattr(Path, "hardlink_to", without_hard_links)


@pytest.mark.usefixtures("file_system")
def test_a_file_that_appeared_during_the_work_is_left_alone(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with refused(path, "exists already"):
        write_image(PICTURE, path, overwrite=False)
    assert path.read_bytes() == b"mine"
    assert names_in(tmp_path) == ["a.png"]


@pytest.mark.usefixtures("file_system")
def test_overwriting_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    old, link = save(tmp_path / "old.png"), tmp_path / "link.png"
    before = old.read_bytes()
    link.symlink_to(old)
    write_image(Image.new("RGB", (3, 2)), link, overwrite=True)
    assert old.read_bytes() == before
    assert read_image(link).size == (3, 2)
    assert names_in(tmp_path) == ["link.png", "old.png"]


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_file_is_written(tmp_path, overwrite):
    write_image(PICTURE, tmp_path / "a.png", overwrite=overwrite)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), PIXELS)
    assert names_in(tmp_path) == ["a.png"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("moment", ["save", "fsync", "rename"])
def test_an_interruption_leaves_what_was_there_before(tmp_path, monkeypatch, moment, overwrite):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if overwrite:
        (tmp_path / "a.png").write_bytes(b"old")
    before = names_in(tmp_path)
    if moment == "save":
        monkeypatch.setattr(ImageFile, "_save", interrupt)
    elif moment == "fsync":
        monkeypatch.setattr(os, "fsync", interrupt)
    else:
        monkeypatch.setattr(Path, "hardlink_to", without_hard_links)
        monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(PICTURE, tmp_path / "a.png", overwrite=overwrite)
    assert names_in(tmp_path) == before
    assert not overwrite or (tmp_path / "a.png").read_bytes() == b"old"


def test_a_full_disk_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with refused(tmp_path / "a.png", "the disk is full"):
        write_image(PICTURE, tmp_path / "a.png", overwrite=False)
    assert names_in(tmp_path) == []


@pytest.mark.skipif(resource is None, reason="needs POSIX limits")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_disk_that_stops_halfway_is_refused_and_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, old_limits[1]))
    try:
        with refused(path, "cannot be written"):
            write_image(PICTURE, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == [name]


def test_a_vanished_or_wrong_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "gone" / "a.png", "No such file or directory"),
        (tmp_path / "file" / "a.png", "Not a directory"),
    ):
        with refused(path, reason):
            write_image(PICTURE, path, overwrite=False)
