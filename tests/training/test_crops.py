"""Crops have the size asked whatever the photograph, and keep its pixels where they can."""

import numpy as np
import pytest

from nsarm_cli.training.crops import cut


def ramp(height, width):
    """Red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("photo", [(64, 64), (200, 90), (90, 200), (20, 30), (31, 200)])
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (32, 64)])
@pytest.mark.parametrize("framing", ["crop", "whole"])
def test_a_crop_has_its_size(photo, size, framing):
    for seed in range(4):
        made = cut(ramp(*photo), size, rng(seed), shrink=2.0, framing=framing)
        assert made.shape == (*size, 3)


def test_whole_takes_the_middle_of_what_just_covers_the_crop():
    made = cut(ramp(100, 200), (50, 50), rng(), framing="whole", turns="none").astype(int)
    assert made[0, 0, 1] == pytest.approx(51, abs=2)
    assert made[-1, -1, 1] == pytest.approx(148, abs=2)
    assert made[0, 0, 0] == pytest.approx(0, abs=2)
    assert made[-1, -1, 0] == pytest.approx(99, abs=2)


def test_without_turns_a_photograph_stays_upright():
    for seed in range(8):
        made = cut(ramp(64, 64), (32, 32), rng(seed), turns="none").astype(int)
        assert made[1, 0, 0] == made[0, 0, 0] + 1
        assert made[0, 1, 1] == made[0, 0, 1] + 1


def test_mirror_swaps_left_and_right_alone():
    steps = set()
    for seed in range(16):
        made = cut(ramp(64, 64), (32, 32), rng(seed), turns="mirror").astype(int)
        assert made[1, 0, 0] == made[0, 0, 0] + 1
        steps.add(made[0, 1, 1] - made[0, 0, 1])
    assert steps == {1, -1}


def test_crops_that_are_not_square_turn_by_halves():
    seen = set()
    for seed in range(32):
        made = cut(ramp(64, 64), (32, 16), rng(seed)).astype(int)
        assert abs(made[1, 0, 0] - made[0, 0, 0]) == 1
        seen.add((made[1, 0, 0] - made[0, 0, 0], made[0, 1, 1] - made[0, 0, 1]))
    assert len(seen) == 4
