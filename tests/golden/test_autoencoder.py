"""The autoencoder at its true size, against the authors' code.

Recorded latents have a standard deviation of 1.8. Convolutions are summed in another order
by other versions and thread counts; 5e-5 is several times what that gives.
"""

import numpy as np
import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.nsarm.bsq import bits_to_codes, from_tokens
from nsarm_cli.models.nsarm.config import NSARM_TINY

TOLERANCE = 5e-5


def test_pictures_become_the_recorded_latents(autoencoder, pictures, golden):
    recorded = golden("vae")
    latents = autoencoder.encode(pictures)
    assert recorded.difference("photo_a.h", latents[0]) < TOLERANCE
    assert recorded.difference("photo_b.h", latents[1]) < TOLERANCE


def test_another_size_becomes_the_recorded_latents(autoencoder, pictures, golden):
    latents = autoencoder.encode(pictures[:1, :, 64:192, 64:192])
    assert golden("vae").difference("crop128.h", latents) < TOLERANCE


def test_latents_become_the_recorded_picture(autoencoder, recipe, golden):
    recorded = golden("vae")
    latents = torch.from_numpy(recipe.noise("input.latent32", (1, 14, 32, 32))) * 0.5
    raw = autoencoder.decoder(latents)
    assert recorded.difference("dec32.raw", raw) < TOLERANCE
    outside = (raw.abs() > 1).float().mean()
    assert recorded.difference("dec32.clamped_frac", outside) < 1e-4
    assert torch.equal(autoencoder.decode(latents), raw.clamp(-1, 1))


@pytest.mark.slow
def test_summed_codes_of_a_whole_window_become_the_recorded_picture(autoencoder, golden):
    """Two minutes on one core: a norm needs the whole picture, so a part will not do."""
    recorded = golden("tiny_ar_cfg1")
    schedule = NSARM_TINY.schedule
    tokens = recorded.bits("bits_packed", [(1, n, 56) for n in schedule.lengths])[7:]
    known = golden("map").bits(
        "photo_a.bits", [(1, 14, s, s) for s in NSARM_TINY.preliminary_sides]
    )
    grids = schedule.tokens[7:]
    drawn = [from_tokens(t, 2, height) for t, (height, _) in zip(tokens, grids, strict=True)]
    feature = ResidualPyramid(schedule.latents).compose([bits_to_codes(b) for b in known + drawn])
    picture = autoencoder.decode(feature)
    assert recorded.difference("image", picture) < TOLERANCE
    assert recorded.difference("image_crop", picture[..., 448:512, 320:384]) < TOLERANCE
    levels = ((picture + 1) / 2 * 255).numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    flat = torch.from_numpy(levels).flatten().int()
    stride = int(recorded["u8.stat"][-1])
    assert (flat[::stride] - recorded["u8.sub"].int()).abs().max() <= 1
