"""Gaussian and Poisson noise. Pictures in [0, 1]."""

import math

import pytest
import torch

from nsarm_cli.degradation.noise import NoiseRanges, add_noise, gaussian_noise, poisson_noise


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaussian_noise_has_the_strength_asked_for():
    noise = gaussian_noise(torch.Size((3, 600, 600)), 12.0, False, rng())
    # Standard errors with 1,080,000 draws: 0.1 % of sigma for the mean, 0.07 % for sigma.
    assert noise.std().item() == pytest.approx(12 / 255, rel=0.003)
    assert noise.mean().item() == pytest.approx(0, abs=0.004 * 12 / 255)
    assert torch.corrcoef(noise.flatten(1)).triu(1).abs().max() < 0.03


def test_poisson_noise_has_the_variance_of_its_photons():
    """A picture of 200 distinct levels counts 256 photons at full light."""
    levels = torch.arange(40, 240).float().repeat_interleave(600).view(1, 200, 600) / 255
    noise = poisson_noise(levels.expand(3, -1, -1), 1.0, False, rng())
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    for row in (0, 100, 199):
        expected = levels[0, row, 0].item() / 256
        # 1,800 draws: the variance's standard error is 3.3 %.
        assert noise[:, row].var().item() == pytest.approx(expected, rel=0.14)


def test_poisson_noise_counts_distinct_levels_to_a_power_of_two():
    x = torch.tensor([0.2, 0.4, 0.8]).repeat(30_000).view(1, 300, 300).expand(3, -1, -1)
    noise = poisson_noise(x, 1.0, False, rng())
    exact = (x * 255).round() / 255
    photons = (noise + exact) * 4  # three levels
    torch.testing.assert_close(photons, photons.round(), rtol=0, atol=1e-5)
    assert photons.mean().item() == pytest.approx(4 * exact.mean().item(), rel=0.02)


def test_poisson_noise_grows_with_its_scale_and_vanishes_in_the_dark():
    x = torch.rand(3, 32, 32, generator=rng())
    once, thrice = (poisson_noise(x, scale, False, rng(1)) for scale in (1.0, 3.0))
    torch.testing.assert_close(thrice, 3 * once)
    assert torch.equal(poisson_noise(torch.zeros(3, 8, 8), 3.0, False, rng()), torch.zeros(3, 8, 8))


@pytest.mark.parametrize("gaussian_probability", [0.0, 1.0])
@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_grey_noise_is_equal_in_all_channels_and_colour_noise_is_not(
    gaussian_probability: float, grey: float
):
    """Within [0.4, 0.6] weak noise is not clamped, so that the sum can be undone."""
    x = 0.4 + 0.2 * torch.rand(3, 40, 40, generator=rng())
    ranges = NoiseRanges(gaussian_probability, (2, 4), (0.05, 0.2), grey)
    noise = add_noise(x, ranges, rng(1)) - x
    assert noise.abs().max() > 1e-3
    is_same = torch.allclose(noise, noise[:1].expand(3, -1, -1), rtol=0, atol=1e-6)
    assert is_same == bool(grey)


def test_grey_poisson_noise_is_that_of_the_luma():
    x = torch.zeros(3, 200, 200)
    x[1] = 1  # green: luma 0.587, one level, so one photon at full light
    noise = poisson_noise(x, 1.0, True, rng())
    assert noise.shape == (1, 200, 200)
    luma = round(0.587 * 255) / 255
    assert noise.var().item() == pytest.approx(luma, rel=0.05)


def test_results_stay_in_range_and_are_not_rounded():
    x = torch.rand(3, 50, 50, generator=rng())
    for gaussian_probability in (0.0, 1.0):
        ranges = NoiseRanges(gaussian_probability, (30, 30), (3, 3), 0.4)
        noisy = add_noise(x, ranges, rng(2))
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        inside = noisy[(noisy > 0) & (noisy < 1)] * 255
        assert (inside - inside.round()).abs().max() > 0.4


def test_kinds_are_drawn_by_their_probabilities():
    """Poisson noise of black is nothing; Gaussian noise of it is seen, in grey or in colour."""
    black = torch.zeros(3, 8, 8)
    ranges = NoiseRanges(0.3, (10, 20), (1, 2), 0.4)
    generator, draws = rng(4), 2000
    noisy = [add_noise(black, ranges, generator) for _ in range(draws)]
    gaussian = [x for x in noisy if x.max() > 0]
    grey = [x for x in gaussian if torch.equal(x[0], x[1])]
    error = 4 * math.sqrt(0.3 * 0.7 / draws)
    assert len(gaussian) / draws == pytest.approx(0.3, abs=error)
    error = 4 * math.sqrt(0.4 * 0.6 / len(gaussian))
    assert len(grey) / len(gaussian) == pytest.approx(0.4, abs=error)
