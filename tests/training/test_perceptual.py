"""How LPIPS and DISTS are used as losses, and what they are kept from."""

import pytest
import torch

from nsarm_cli.training.perceptual import jitter, repeated_pattern, same_square


def test_jitter_cuts_both_pictures_alike_and_passes_through_every_phase():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    picture = (10 * rows + columns).float()[None, None]
    corners = set()
    for step in range(16):
        a, b = jitter(picture, -picture, step)
        assert torch.equal(a, -b)
        corners.add(int(a[0, 0, 0, 0]))
        assert int(a[0, 0, -1, -1]) == 77
    assert corners == {10 * top + left for top in range(4) for left in range(4)}


def test_squares_are_cut_from_both_pictures_alike_and_elsewhere_at_each_step():
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    picture = (100 * rows + columns)[None, None]
    corners = []
    for step in range(200):
        a, b = same_square(picture, -picture, 8, step)
        assert a.shape == (1, 1, 8, 8)
        assert torch.equal(a, -b)
        corners.append(divmod(int(a[0, 0, 0, 0]), 100))
    tops, lefts = map(set, zip(*corners, strict=True))
    assert tops == set(range(20 - 8 + 1))
    assert lefts == set(range(30 - 8 + 1))
    assert len(set(corners)) > 120


def test_a_square_larger_than_the_pictures_is_the_pictures():
    picture = torch.rand(2, 3, 20, 30)
    assert all(torch.equal(x, picture) for x in same_square(picture, picture, 64, 3))


def test_a_grid_is_found_in_its_own_strength_and_a_change_of_colour_is_none():
    wanted = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(4, 4)
    grid[0] = 0.4  # the first row of each block: 0.3 above the mean, the others 0.1 below
    made = wanted + grid.repeat(16, 16)
    assert float(repeated_pattern(made, wanted, 4)) == pytest.approx(0.15)
    assert float(repeated_pattern(wanted + 0.4, wanted, 4)) == pytest.approx(0, abs=1e-6)
    assert float(repeated_pattern(made, wanted, 1)) == 0


def test_noise_that_does_not_repeat_is_nearly_no_pattern():
    wanted = torch.zeros(1, 3, 256, 256)
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    assert float(repeated_pattern(noise, wanted, 4)) < 0.15 * float(noise.abs().mean())
