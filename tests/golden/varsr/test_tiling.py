"""Windows joined as latents, against the authors' code."""

import itertools

import pytest
import torch

from nsarm_cli.imaging.tiles import Window
from nsarm_cli.latent_pass import LatentBlend
from nsarm_cli.models.varsr.windows import window_weights

SIDE, STRIDE = 32, 24


def test_weights_of_a_window_are_the_recorded_ones(golden):
    theirs = golden("varsr/tiling")["weights_f64"]
    torch.testing.assert_close(window_weights(SIDE), theirs, rtol=1e-9, atol=0)


@pytest.mark.parametrize("grid", [(32, 32), (32, 64), (57, 33)])
def test_blends_are_the_recorded_ones(grid, golden, varsr_recipe):
    """At the authors' places: every 24 latents, the last moved back to the border."""

    def starts(length: int) -> list[int]:
        return [*range(0, max(length - SIDE, 0), STRIDE), length - SIDE]

    name = f"{grid[0]}x{grid[1]}"
    rows, columns = (starts(length) for length in grid)
    shape = (len(rows), len(columns), 32, SIDE, SIDE)
    tiles = torch.from_numpy(varsr_recipe.gaussian(f"tiles.{name}", shape)).float()
    blend = LatentBlend(grid, window_weights(SIDE))
    for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        blend.add(tiles[i, j], Window(top, left, SIDE))
    recorded = golden("varsr/tiling")
    assert recorded.difference(f"blend.{name}.ch0_4", blend.result()[:4]) < 1e-5
