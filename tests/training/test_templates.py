"""Every ratio has a schedule and crops of its shape, at about the cost of the square."""

import dataclasses

import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.config import NSARM_8B, NSARM_NANO
from nsarm_cli.models.nsarm.schedules import RATIOS, schedule_for
from nsarm_cli.training.templates import crop_size, grids_of_crop, template


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_large_model_has_the_published_grids(ratio):
    assert template(NSARM_8B, ratio) == schedule_for(ratio, "1M")


@pytest.mark.parametrize("size", ["0.25M", "0.60M"])
def test_a_model_of_a_smaller_size_has_those_of_that_size(size):
    sides = tuple(height for height, _ in schedule_for(1.0, size).tokens)
    smaller = dataclasses.replace(NSARM_8B, sides=sides)
    assert template(smaller, 1.5) == schedule_for(1.5, size)


@pytest.mark.parametrize("ratio", RATIOS)
def test_other_models_keep_shape_scales_and_nearly_the_area(ratio):
    made = template(NSARM_NANO, ratio)
    assert len(made) == len(NSARM_NANO.sides)
    height, width = made.tokens[-1]
    assert height / width == pytest.approx(ratio, rel=0.06)
    assert made.total == pytest.approx(NSARM_NANO.schedule.total, rel=0.05)


def test_the_square_is_the_models_own_schedule():
    assert template(NSARM_NANO, 1.0) == NSARM_NANO.schedule


def test_a_ratio_without_a_template_is_refused():
    with pytest.raises(ConfigError, match=r"ratios has 1\.1; choose from 1\.0, 1\.25, 0\.8"):
        template(NSARM_NANO, 1.1)


@pytest.mark.parametrize("ratio", RATIOS)
def test_whole_windows_have_the_pixels_of_their_grid(ratio):
    height, width = template(NSARM_8B, ratio).latents[-1]
    assert crop_size(NSARM_8B, ratio, 1024) == (height * 8, width * 8)


def test_smaller_crops_keep_the_shape():
    assert crop_size(NSARM_8B, 1.0, 256) == (256, 256)
    assert crop_size(NSARM_8B, 1.5, 256) == (312, 208)
    assert crop_size(NSARM_8B, 0.666, 256) == (208, 312)


def test_grids_of_a_crop_are_those_of_the_window_in_proportion():
    latents = NSARM_NANO.schedule.latents
    assert grids_of_crop(NSARM_NANO, 1.0, (64, 64)) == latents
    assert grids_of_crop(NSARM_NANO, 1.0, (32, 32))[:3] == ((1, 1), (2, 2), (4, 4))
    tall = grids_of_crop(NSARM_NANO, 2.0, (44, 22))
    assert tall[-1] == (44, 22)
    assert all(h >= w for h, w in tall)
