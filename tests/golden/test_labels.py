"""Training targets of both stages, against the authors' code."""

import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid, bilinear
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.config import NSARM_TINY
from nsarm_cli.training.labels import modified_labels, preliminary_targets

SCHEDULE = NSARM_TINY.schedule
PYRAMID = ResidualPyramid(SCHEDULE.latents)
TOKENS = [(1, length, 56) for length in SCHEDULE.lengths]


def flips(recorded) -> list[torch.Tensor]:
    """The recorded masks as "b d s s"."""
    masks = recorded.bits("stage2n.mask_packed", [(1, h, w, 14) for h, w in SCHEDULE.latents])
    return [mask.permute(0, 3, 1, 2) for mask in masks]


@pytest.mark.parametrize("scales", [7, 13])
def test_stage_1_targets_are_the_recorded_residuals(golden, scales):
    recorded = golden("labels")
    latents = golden("latents_1024")["photo_a"]
    for k, target in enumerate(preliminary_targets(latents, PYRAMID, scales)):
        assert recorded.difference(f"stage1.o_residual.{k}", target) < 5e-6


def test_bits_of_the_residuals_are_the_recorded_plain_labels(golden):
    residuals, _ = PYRAMID.decompose(golden("latents_1024")["photo_a"], bsq.quantise)
    labels = golden("labels").bits("stage1.labels_packed", TOKENS)
    for residual, label in zip(residuals, labels, strict=True):
        assert torch.equal(bsq.to_tokens(bsq.latents_to_bits(residual), 2), label)


@pytest.mark.parametrize("stage", ["stage2", "stage2n"])
def test_stage_2_inputs_and_labels_are_the_recorded_ones(golden, preliminary, stage):
    recorded = golden("labels")
    made = modified_labels(
        golden("latents_1024")["photo_a"],
        preliminary,
        PYRAMID,
        patch=2,
        next_input=bilinear,
        flips=flips(recorded) if stage == "stage2n" else None,
    )
    for ours, theirs in zip(
        made.labels, recorded.bits(f"{stage}.labels_packed", TOKENS), strict=True
    ):
        assert torch.equal(ours, theirs)
    for k, tokens in enumerate(made.inputs, start=1):
        assert recorded.difference(f"{stage}.x.{k}", tokens) < 3e-6
