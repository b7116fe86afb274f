"""A grid that repeats with the blocks of a decoder is found, and most where a picture is smooth."""

import pytest
import torch


@pytest.fixture
def grid(script):
    return script("grid")


@pytest.fixture
def reference():
    generator = torch.Generator().manual_seed(0)
    picture = torch.full((1, 3, 128, 128), 100.0)
    picture[..., 64:] += 40 * torch.randn(1, 3, 128, 64, generator=generator)
    return picture


def test_equal_pictures_and_a_change_of_colour_have_none(grid, reference):
    assert grid.strengths(reference, reference) == (0, 0)
    assert grid.strengths(reference + 5, reference) == pytest.approx((0, 0), abs=1e-4)


def test_a_grid_has_its_strength_and_noise_elsewhere_leaves_smooth_areas_alone(grid, reference):
    lines = torch.zeros(128)
    lines[::4] = 4  # 3 above the mean of its block and 1 below
    everywhere, smooth = grid.strengths(reference + lines, reference)
    assert (everywhere, smooth) == pytest.approx((1.5, 1.5), rel=1e-4)
    noisy = reference.clone()
    noisy[..., 96:] += 50 * torch.randn(1, 3, 128, 32, generator=torch.Generator().manual_seed(1))
    everywhere, smooth = grid.strengths(noisy, reference)
    assert everywhere > 1
    assert smooth == 0
