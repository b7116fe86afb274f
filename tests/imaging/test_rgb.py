"""Every kind of picture becomes the RGB picture that a viewer shows."""

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.rgb import to_rgb

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
RGB = Image.fromarray(COLORS)


def pixels(image: Image.Image) -> np.ndarray:
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert rgb.info == {}
    return np.asarray(rgb)


def test_an_rgb_picture_is_copied_without_its_metadata():
    image = RGB.copy()
    image.info["icc_profile"] = b"profile"
    copy = to_rgb(image)
    assert copy is not image
    assert np.array_equal(pixels(image), COLORS)
    assert image.info == {"icc_profile": b"profile"}


def test_grey_becomes_three_equal_channels():
    grey = COLORS[..., 0]
    assert np.array_equal(pixels(Image.fromarray(grey)), np.stack([grey] * 3, -1))
    black_and_white = Image.fromarray(grey > 127)
    assert set(pixels(black_and_white).flatten().tolist()) == {0, 255}


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_is_rounded_to_the_nearest_level(order):
    grey = np.array([[0, 128, 129, 257, 385, 386, 65406, 65407, 65535]])
    image = Image.fromarray(grey.astype(f"{order}u2"))
    assert image.mode.startswith("I;16")
    assert pixels(image)[0, :, 1].tolist() == [0, 0, 1, 1, 1, 2, 254, 255, 255]


def test_a_palette_is_looked_up():
    palette = RGB.quantize(16)
    assert np.array_equal(pixels(palette), np.asarray(palette.convert("RGB")))


def test_transparent_parts_are_shown_on_white():
    alpha = RNG.integers(0, 256, (6, 5, 1), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    share = alpha / 255
    expected = COLORS * share + 255 * (1 - share)
    shown = pixels(Image.fromarray(np.concatenate([COLORS, alpha], -1)))
    assert np.abs(shown - expected).max() <= 1
    assert (shown[0] == 255).all()
    assert np.array_equal(shown[1], COLORS[1])


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa"])
def test_every_kind_of_transparency_is_shown_on_white(mode):
    """The small letter marks colours that are already multiplied by their opacity."""
    image = Image.new("LA", (1, 1), (0, 51)).convert("RGBA" if "RGB" in mode else "LA")
    assert pixels(image.convert(mode))[0, 0].tolist() == [204, 204, 204]


def test_other_colour_spaces_are_converted():
    for mode in ("HSV", "LAB", "RGBX"):
        assert pixels(Image.new("RGB", (2, 2), "white").convert(mode)).min() >= 254


def test_a_transparent_palette_entry_or_colour_is_shown_as_white():
    palette = RGB.quantize(16)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert pixels(palette)[0, 0].tolist() == [255, 255, 255]
    image = RGB.copy()
    image.info["transparency"] = tuple(COLORS[2, 3].tolist())
    assert pixels(image)[2, 3].tolist() == [255, 255, 255]
    assert np.array_equal(pixels(image)[0], COLORS[0])


def test_cmyk_and_ycbcr_are_converted():
    inks = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert pixels(inks)[0, 0].tolist() == [0, 255, 255]
    back = pixels(RGB.convert("YCbCr")).astype(int)
    assert np.abs(back - COLORS).max() <= 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused(mode):
    with pytest.raises(ImageError, match=r"^scan: holds 32-bit numbers .*; save it with 8 or 16"):
        to_rgb(Image.new(mode, (2, 2)), "scan")
