"""Before and after show the same part of a picture, as a viewer would."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging import comparison
from nsarm_cli.imaging.comparison import Comparison, comparison_paths
from nsarm_cli.imaging.formats import output_format
from nsarm_cli.imaging.layout import Layout, layout_for
from nsarm_cli.imaging.picture import Picture, read_picture

RNG = np.random.default_rng(0)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return read_picture(path)


def enlarged(picture: Picture, width: int, height: int, target) -> tuple[Layout, np.ndarray]:
    """What stands for a model's output here: every pixel repeated."""
    layout, _ = layout_for(picture, width, height, output_format(target))
    rows = np.arange(height) * picture.height // height
    columns = np.arange(width) * picture.width // width
    pixels = picture.pixels
    if layout.has_alpha:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], -1)
    return layout, pixels[rows][:, columns]


def compared(tmp_path, picture, width, height, strip=7, title="a title"):
    """Write a comparison, and give before and after as the picture has them, and the page."""
    target = tmp_path / "out.png"
    layout, pixels = enlarged(picture, width, height, target)
    pair = Comparison(picture, layout)
    strips = iter(np.split(pixels, range(strip, height, strip)))
    assert np.array_equal(np.concatenate(list(pair.watch(strips))), pixels)
    paths = comparison_paths(target)
    pair.write(paths, pair.layout, title, overwrite=False)
    both = np.asarray(Image.open(paths[0]))
    assert both.shape == (pair.height, 2 * pair.width + 8, 3)
    return both[:, : pair.width], both[:, -pair.width :], paths[1].read_text()


def images(page):
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_before_is_bicubic_and_after_is_the_output(tmp_path):
    small = RNG.integers(0, 256, (11, 13, 3), dtype=np.uint8)
    picture = save(tmp_path / "a.png", small)
    before, after, page = compared(tmp_path, picture, 52, 44)
    wanted = Image.fromarray(small).resize((52, 44), Image.Resampling.BICUBIC)
    assert np.array_equal(before, np.asarray(wanted))
    assert np.array_equal(after, small.repeat(4, 0).repeat(4, 1))
    for shown, exact in zip(images(page), (before, after), strict=True):
        assert shown.shape == exact.shape
        assert np.abs(shown.astype(int) - exact).mean() < 4  # a JPEG of noise


@pytest.mark.parametrize(("width", "height"), [(52, 44), (39, 33), (31, 200), (200, 25)])
def test_the_middle_of_a_large_output_is_shown_and_both_are_the_same_part(
    tmp_path, monkeypatch, width, height
):
    small = RNG.integers(0, 256, (11, 13, 3), dtype=np.uint8)
    picture = save(tmp_path / "a.png", small)
    whole, _, _ = compared(tmp_path, picture, width, height)
    for path in tmp_path.glob("out_*"):
        path.unlink()
    monkeypatch.setattr(comparison, "LONGEST", 28)
    before, after, page = compared(tmp_path, picture, width, height)
    high, wide = min(height, 28), min(width, 28)
    y, x = (height - high) // 2, (width - wide) // 2
    assert after.shape == (high, wide, 3)
    pixels = enlarged(picture, width, height, tmp_path / "out.png")[1]
    assert np.array_equal(after, pixels[y : y + high, x : x + wide])
    # Pillow resizes in two steps of 8 bits and its positions have a limited precision.
    assert np.abs(before.astype(int) - whole[y : y + high, x : x + wide]).max() <= 2
    assert f"the middle {wide}x{high} pixels" in page


def test_grey_deep_and_transparent_pictures_are_shown_as_viewers_do(tmp_path, icc):
    grey = save(tmp_path / "g.png", RNG.integers(0, 256, (6, 5), dtype=np.uint8))
    before, after, _ = compared(tmp_path, grey, 5, 6)
    assert np.array_equal(before, after)
    assert np.array_equal(after[..., 0], grey.pixels[..., 0])
    for path in tmp_path.glob("out_*"):
        path.unlink()
    clear = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    clear[0, 0, 3], clear[1, 1, 3] = 0, 255
    before, after, _ = compared(tmp_path, save(tmp_path / "c.png", clear), 5, 6)
    assert np.array_equal(before, after)
    assert after[0, 0].tolist() == [255, 255, 255]
    assert after[1, 1].tolist() == clear[1, 1, :3].tolist()
    for path in tmp_path.glob("out_*"):
        path.unlink()
    wide = save(tmp_path / "w.png", clear[..., :3], icc_profile=icc.wide)
    before, after, _ = compared(tmp_path, wide, 5, 6)
    assert np.array_equal(before, after)
    assert not np.array_equal(after, wide.pixels)


def test_a_title_is_text_whatever_it_says(tmp_path):
    picture = save(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    title = "</title><script>alert(1)</script> ${x} \udcff & \"'"
    _, _, page = compared(tmp_path, picture, 8, 8, title=title)
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ${x} ? &amp;" in page


def test_nothing_is_replaced_unasked(tmp_path):
    picture = save(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    for path in comparison_paths(tmp_path / "out.png"):
        path.write_text("mine")
        with pytest.raises(ImageError, match="exists already"):
            compared(tmp_path, picture, 8, 8)
        assert path.read_text() == "mine"
        for each in tmp_path.glob("out_*"):
            each.unlink()
