"""The transformation network at its true size, against the authors' code."""

import torch

from nsarm_cli.models.nsarm.bsq import latents_to_bits


def test_residuals_and_their_bits_are_the_recorded_ones(tiny, golden):
    recorded, vae = golden("map"), golden("vae")
    latents = torch.cat([vae["photo_a.h"], vae["photo_b.h"]])
    features = tiny.transformation.trunk(latents[:1])
    assert recorded.difference("photo_a.features", features) < 2e-5
    residuals = tiny.transformation(latents)
    shapes = [tuple(residual.shape[1:]) for residual in residuals]
    for row, photo in enumerate(("photo_a", "photo_b")):
        bits = recorded.bits(f"{photo}.bits", shapes)
        for i, residual in enumerate(residuals):
            assert recorded.difference(f"{photo}.out.{i}", residual[row]) < 2e-5
            assert torch.equal(latents_to_bits(residual[row]), bits[i])
