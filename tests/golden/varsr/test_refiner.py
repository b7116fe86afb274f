"""The refiner's schedule, network, steps, whole samplings and loss, against the authors' code."""

import pytest
import torch

from nsarm_cli.models.varsr.diffusion import TRAINED_STEPS, Diffusion, refiner_loss, spaced
from nsarm_cli.models.varsr.refiner import time_features

TOLERANCE = 3e-5
TEN = Diffusion.over(spaced(10))
ALL = Diffusion.over(range(TRAINED_STEPS))


@pytest.fixture
def recorded(golden):
    return golden("varsr/refiner")


@pytest.fixture
def refiner(small_case):
    return small_case.model.refiner


def test_ten_steps_have_the_recorded_schedule(recorded):
    assert list(TEN.times) == recorded["timestep_map"].tolist()
    torch.testing.assert_close(TEN.levels, recorded["gen.alphas_cumprod"], rtol=1e-9, atol=0)
    torch.testing.assert_close(TEN.betas, recorded["gen.betas"], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(ALL.betas, recorded["train.betas"], rtol=1e-9, atol=1e-15)
    theirs = recorded["gen.posterior_log_variance_clipped"]
    torch.testing.assert_close(TEN.posterior_log_variance, theirs, rtol=1e-9, atol=0)


def test_the_network_gives_the_recorded_output(recorded, refiner):
    times = recorded["t"].long()
    assert recorded.difference("timestep_embedding", time_features(times)) < TOLERANCE
    out = refiner(recorded["x"], times, recorded["c"])
    assert recorded.difference("net_out", out) < TOLERANCE


@pytest.mark.parametrize("i", [0, 1, 5, 9])
def test_one_step_back_has_the_recorded_moments(i, recorded, refiner):
    x, conditions, step = recorded["x"], recorded["c"], torch.tensor(i)
    out = refiner(x, torch.tensor(TEN.times[i]), conditions)
    noise, variance = out.chunk(2, dim=-1)
    clean = TEN.clean(x, step, noise).clamp(-1, 1)
    moments = TEN.predicted_back(clean, variance, x, step)
    name = f"p_mean_variance.i{i}"
    assert recorded.difference(f"{name}.pred_xstart", clean) < TOLERANCE
    assert recorded.difference(f"{name}.mean", moments.mean) < TOLERANCE
    assert recorded.difference(f"{name}.log_variance", moments.log_variance) < 1e-4


@pytest.mark.parametrize("strength", [6.0, 0.5])
def test_a_guided_sampling_is_the_recorded_one(strength, recorded, refiner, recorded_noise):
    shapes = [(8, 8)] + [(16, 8)] * 10
    noise = recorded_noise(f"refiner.cfg{strength}", shapes, (1, 8, 8))
    conditions = recorded["c"].reshape(2, 8, -1)
    residual = refiner.sample(conditions, TEN, noise, strength)
    theirs = recorded[f"sample.cfg{strength}"][:8]
    torch.testing.assert_close(residual[0], theirs, atol=TOLERANCE, rtol=0)


def test_without_guidance_the_sampling_is_the_one_recorded_so(recorded, refiner, recorded_noise):
    """The authors take a strength of 1 as none, in the refiner alone; ours is 0."""
    noise = recorded_noise("refiner.cfg1.0", [(16, 8)] * 11, (1, 16, 8))
    residual = refiner.sample(recorded["c"][None], TEN, noise, 0.0)
    torch.testing.assert_close(residual[0], recorded["sample.cfg1.0"], atol=TOLERANCE, rtol=0)


def test_the_loss_is_the_recorded_one(recorded, refiner):
    clean, noise, times = recorded["train.x0"], recorded["train.noise"], recorded["t"].long()
    out = refiner(ALL.noised(clean, times, noise), times, recorded["c"])
    loss = refiner_loss(ALL, clean, times, noise, out)
    torch.testing.assert_close(loss, recorded["train.loss"], rtol=1e-4, atol=1e-4)
