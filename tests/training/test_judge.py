"""Figures of validation pictures."""

import math

import pytest
import torch

from nsarm_cli.evaluation.niqe import niqe
from nsarm_cli.imaging.tensors import to_u8
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.judge import Judge


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_psnr_is_over_the_range_of_a_picture():
    judge = Judge(None)
    judge.compare(torch.full((1, 3, 8, 8), 0.2), torch.zeros(1, 3, 8, 8))
    judge.compare(torch.full((1, 3, 8, 8), 0.02), torch.zeros(1, 3, 8, 8))
    assert judge.figures() == {"psnr": pytest.approx(30.0)}  # 20 and 40 dB


def test_perceptual_distance_is_told_where_there_are_weights(alexnet_file):
    perceptual = PerceptualDistance.from_file(alexnet_file)
    made, wanted = noise(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    judge = Judge(perceptual)
    judge.compare(made, wanted)
    assert judge.figures()["perceptual"] == pytest.approx(float(perceptual(made, wanted)), rel=1e-4)


def test_dists_is_told_where_there_are_weights(vgg16_file):
    dists = Dists.from_file(vgg16_file)
    made, wanted = noise(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    judge = Judge(None, dists)
    judge.compare(made, wanted)
    assert judge.figures()["dists"] == pytest.approx(float(dists.each(made, wanted).mean()))
    assert "perceptual" not in judge.figures()


def test_niqe_is_told_of_pictures_that_are_large_enough():
    made = noise(2, 3, 96, 192)
    judge = Judge(None)
    judge.look(made)
    assert judge.figures()["niqe"] == pytest.approx(sum(niqe(p) for p in to_u8(made)) / 2)
    judge.look(torch.zeros(1, 3, 96, 192))  # flat: not a number, and left out
    assert not math.isnan(judge.figures()["niqe"])

    small = Judge(None)
    small.look(noise(1, 3, 64, 64))
    assert small.figures() == {}
