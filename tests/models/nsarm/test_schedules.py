import json
from pathlib import Path

import pytest
import torch

from nsarm_cli.models.core.rope import rope_table
from nsarm_cli.models.nsarm.schedules import RATIOS, SCALES_OF_SIZE, nearest_ratio, schedule_for

# Recorded from the authors' tables: grids, rotary coordinates, pixels and tokens by size.
RECORDED = json.loads((Path(__file__).parents[2] / "goldens" / "schedules.json").read_text())
PIXELS_PER_TOKEN = 16


def test_there_is_a_schedule_for_every_recorded_ratio():
    assert [str(ratio) for ratio in RATIOS] == list(RECORDED)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", SCALES_OF_SIZE)
def test_grids_tokens_and_pixels_are_the_recorded_ones(ratio, size):
    schedule, recorded = schedule_for(ratio, size), RECORDED[str(ratio)]
    pixels, tokens = recorded["sizes"][size]
    grids = [list(grid) for grid in schedule.tokens]
    assert grids == recorded["grids"][: len(grids)]
    assert [side * PIXELS_PER_TOKEN for side in grids[-1]] == pixels
    assert schedule.total == tokens


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("size", SCALES_OF_SIZE)
def test_positions_are_the_recorded_ones_whatever_the_size(ratio, size):
    schedule, recorded = schedule_for(ratio, size), RECORDED[str(ratio)]
    positions: list[list[float]] = []

    def note(stretched: torch.Tensor) -> torch.Tensor:
        positions.append(stretched.round().tolist())
        return stretched.round()

    rope_table(schedule.tokens, 4, schedule.position_grid, settle=note)
    scales = len(schedule)
    assert positions[::2] == recorded["y"][:scales]
    assert positions[1::2] == recorded["x"][:scales]


def test_the_nearest_ratio_is_by_absolute_difference():
    assert nearest_ratio(1.04) == 1.0
    assert nearest_ratio(9 / 16) == 0.571
    assert nearest_ratio(16 / 9) == 1.75
    assert nearest_ratio(0.01) == 0.333
    assert nearest_ratio(100) == 3.0


def test_the_first_ratio_wins_a_tie():
    assert nearest_ratio(2.25) == 2.0  # as near to 2.5
    assert nearest_ratio(0.45) == 0.5  # as near to 0.4
    assert nearest_ratio(1.125) == 1.0  # as near to 1.25


def test_what_has_no_schedule_is_refused():
    with pytest.raises(ValueError, match=r"no schedule for ratio 1\.1"):
        schedule_for(1.1)
    with pytest.raises(ValueError, match="no size 2M"):
        schedule_for(1.0, "2M")
