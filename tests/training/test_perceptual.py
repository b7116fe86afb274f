"""How LPIPS is used as a loss."""

import torch

from nsarm_cli.training.perceptual import jitter


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
