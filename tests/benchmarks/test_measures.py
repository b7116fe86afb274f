"""The measures that quality figures rest on."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def measures(script):
    return script("measures")


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def test_luma_of_black_and_white_spans_the_studio_range(measures):
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    assert measures.luma(ends).ravel() == pytest.approx([16, 235])


def test_one_level_of_grey_costs_what_the_formula_says(measures):
    grey = np.full((8, 8, 3), 100, np.uint8)
    sr = measures.luma(grey + np.uint8(1))
    expected = 20 * np.log10(255 / (219 / 255))
    assert measures.psnr(measures.luma(grey), sr, 255) == pytest.approx(expected)


def test_reducing_agrees_with_pillow_away_from_the_border(measures, noise):
    small = np.asarray(Image.fromarray(noise).resize((12, 16), Image.Resampling.BICUBIC))
    inside = np.s_[2:-2, 2:-2]
    # Pillow rounds after each of its two passes.
    assert np.abs(measures.reduce(noise)[inside] - small[inside]).max() < 1.1


def test_reducing_turns_with_the_picture(measures, noise):
    turned = measures.reduce(noise[::-1, ::-1].transpose(1, 0, 2))
    assert turned == pytest.approx(measures.reduce(noise)[::-1, ::-1].transpose(1, 0, 2))


def test_a_reddish_output_has_the_colour_shift_of_red(measures):
    lr = np.full((8, 8, 3), 100, np.uint8)
    sr = np.full((32, 32, 3), 100, np.uint8) + np.array([3, 0, 1], np.uint8)
    found = measures.own_measures(sr, lr, None)
    assert [found[f"shift_{c}"] for c in "rgb"] == pytest.approx([3, 0, 1])
    assert found["color_shift"] == pytest.approx(3)
    assert "psnr_y" not in found


def test_sizes_that_do_not_belong_together_are_refused(measures, noise):
    with pytest.raises(ValueError, match="not four times"):
        measures.own_measures(noise, noise, None)
    with pytest.raises(ValueError, match="of the reference"):
        measures.own_measures(noise, noise[::4, ::4], noise[:-1])


@pytest.mark.parametrize(
    ("column", "shift", "verdict"),
    [
        ("lpips", -0.05, "better"),
        ("lpips", 0.05, "worse"),
        ("psnr_y", 0.05, "better"),
        ("lpips", 0.0, "unclear"),
    ],
)
def test_a_difference_is_clear_when_its_interval_leaves_out_zero(measures, column, shift, verdict):
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.2, 48)  # pictures differ far more than methods do
    noise = rng.normal(0, 0.05, 48)
    other = base + shift + noise - noise.mean()
    assert measures.paired_difference(column, other, base).verdict == verdict


def test_the_interval_is_as_wide_as_the_standard_error_says(measures):
    d = np.random.default_rng(2).normal(0.3, 1, 400)
    found = measures.paired_difference("niqe", d, np.zeros(400))
    _, error = measures.mean_and_error(d)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.mean == pytest.approx(d.mean())
