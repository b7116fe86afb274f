"""How LPIPS and DISTS are used as losses."""

import torch

from nsarm_cli.training.perceptual import jitter, same_square


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
