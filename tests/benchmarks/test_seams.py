"""Seams between windows are found, and not where there are none."""

import numpy as np
import pytest

WINDOW, OVERLAP = 16, 4


@pytest.fixture
def seams(script):
    return script("seams")


@pytest.fixture
def grain():
    return np.random.default_rng(0).normal(0, 1, (256, 256))


def ratios(seams, y):
    profiles = [seams.profile(y, axis) for axis in (0, 1)]
    lines = [seams.border_lines(n // 4, WINDOW, OVERLAP) for n in y.shape]
    return seams.against_interior(profiles, lines), seams.against_neighbours(profiles, lines)


def test_borders_are_where_windows_begin_and_end(seams):
    assert seams.border_lines(28, 16, 4) == [4 * 12, 4 * 16]
    assert seams.border_lines(16, 16, 4) == []
    assert seams.border_lines(9, 16, 4) == []


def test_an_even_picture_has_ratios_of_one(seams, grain):
    # 8 lines per axis of 256 gradients each: about 1 % of chance.
    assert ratios(seams, grain) == pytest.approx((1, 1), abs=0.03)


def test_windows_of_unequal_brightness_are_found(seams, grain):
    steps = np.zeros(256)
    for i, line in enumerate(seams.border_lines(64, WINDOW, OVERLAP)):
        steps[line:] += (-1) ** i
    against_all, against_near = ratios(seams, grain + steps + steps[:, None])
    assert against_all > 1.1
    assert against_near > 1.1
