"""Binary spherical quantisation over scales (NSARM Alg. 1), against the authors' code."""

import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.config import NSARM_TINY

GRIDS = NSARM_TINY.schedule.latents
# Codes are the exact constant here; the authors' go through a straight-through sum and a
# norm, which leaves differences of a few 1e-7 in a sum of 13 codes.
TOLERANCE = 3e-6


@pytest.mark.parametrize(
    ("name", "file", "key", "scales"),
    [("s32", "vae", "photo_a.h", 7), ("s128", "latents_1024", "photo_a", 13)],
)
def test_latents_split_into_the_recorded_bits_and_sums(golden, name, file, key, scales):
    recorded = golden("bsq")
    pyramid = ResidualPyramid(GRIDS[:scales])
    residuals, codes = pyramid.decompose(golden(file)[key], bsq.quantise)
    shapes = [(1, 1, h, w, 14) for h, w in pyramid.grids]
    for residual, bits in zip(residuals, recorded.bits(f"{name}.bits_packed", shapes), strict=True):
        assert torch.equal(bsq.latents_to_bits(residual), bits[:, 0].permute(0, 3, 1, 2))
    feature = None
    for k in range(1, scales):
        feature = pyramid.add(feature, codes[k - 1], k - 1)
        scale_input = pyramid.next_input(feature, k)
        assert recorded.difference(f"{name}.var_input.{k}", scale_input) < TOLERANCE
    assert recorded.difference(f"{name}.quantized", pyramid.compose(codes)) < TOLERANCE
