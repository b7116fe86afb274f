"""What is transparent takes the colours of what is visible near it."""

import numpy as np
import pytest

from nsarm_cli.imaging.transparency import HiddenColors


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_colours_continue_the_visible_ones(dtype):
    top = np.iinfo(dtype).max
    pixels = np.zeros((50, 70, 3), dtype)
    alpha = np.zeros((50, 70), dtype)
    pixels[:, :20], alpha[:, :20] = (top // 2, top // 4, top), top
    filled = HiddenColors(pixels, alpha).fill(pixels, alpha, 0)
    assert filled.dtype == dtype
    assert np.array_equal(filled[:, :20], pixels[:, :20])
    assert np.abs(filled[:, 20:].astype(int) - (top // 2, top // 4, top)).max() <= top // 200


def test_visible_pixels_stay_even_where_they_are_faint():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (33, 21, 3), dtype=np.uint8)
    alpha = rng.integers(0, 3, (33, 21), dtype=np.uint8)
    filled = HiddenColors(pixels, alpha).fill(pixels, alpha, 0)
    assert np.array_equal(filled[alpha > 0], pixels[alpha > 0])


def test_rows_are_filled_as_the_whole_is():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 40, 1), dtype=np.uint8)
    alpha = (rng.random((64, 40)) > 0.95).astype(np.uint8) * 255
    hidden = HiddenColors(pixels, alpha)
    whole = hidden.fill(pixels, alpha, 0)
    parts = [hidden.fill(pixels[t : t + 16], alpha[t : t + 16], t) for t in range(0, 64, 16)]
    assert np.abs(whole.astype(int) - np.concatenate(parts)).max() <= 1


def test_a_picture_of_nothing_is_filled_with_something():
    pixels, alpha = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)
    assert HiddenColors(pixels, alpha).fill(pixels, alpha, 0).shape == (1, 1, 3)
