"""NIQE, against numbers of pyiqa 0.1.16 with the same model of photographs."""

import math

import pytest
import torch

from nsarm_cli.evaluation.niqe import _halve, has_enough_blocks, niqe
from nsarm_cli.evaluation.resize import resize_matlab

# Measured on the very pictures of `damaged`.
PUBLISHED = {
    "same": 3.6153968099500426,
    "blur": 4.209437560684216,
    "dark": 9.021677017685464,
    "flat": 9.263071151522734,
    "wide": 3.348781090968704,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_values_are_those_of_published_tables(damaged, name):
    # Half the picture is made in single precision: in double, "same" would be off by 2e-7.
    assert niqe(damaged(name)[0][0]) == pytest.approx(PUBLISHED[name], abs=2e-8)


def test_half_a_picture_is_matlabs_and_in_single_precision():
    x = torch.rand(96, 192, generator=torch.Generator().manual_seed(0))
    half = _halve(_halve(x).T).T
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), resize_matlab(x, (48, 96)), atol=1e-6, rtol=0)


def test_what_is_left_of_the_last_whole_block_does_not_count(damaged):
    picture = damaged("same")[0][0]
    cut = picture[:, :192, :192].clone()
    assert niqe(picture) == niqe(cut)


def test_a_picture_without_texture_has_no_value():
    assert math.isnan(niqe(torch.full((3, 200, 200), 90, dtype=torch.uint8)))


def test_two_blocks_are_the_least():
    assert has_enough_blocks(96, 192)
    assert not has_enough_blocks(191, 191)
