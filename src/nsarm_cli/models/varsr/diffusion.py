"""The diffusion process of VARSR's refiner: its schedule, one step back, and its loss.

Noise prediction with a learned variance (Improved DDPM, arXiv 2102.09672) over single
vectors. Tables are made in float64 and used in float32.

Letters: n vectors, d latent channels, t one of the trained steps, i one of those sampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TRAINED_STEPS = 1000


def _cosine_betas() -> Tensor:
    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = range(TRAINED_STEPS)
    values = [1 - level((i + 1) / TRAINED_STEPS) / level(i / TRAINED_STEPS) for i in steps]
    return torch.tensor(values, dtype=torch.float64).clamp(max=0.999)


def spaced(steps: int) -> list[int]:
    """Which of the trained steps are sampled: evenly from the first to the last.

    Raises:
        ValueError: fewer than 2, or more than were trained.
    """
    if not 2 <= steps <= TRAINED_STEPS:
        raise ValueError(f"refiner steps must be from 2 to {TRAINED_STEPS}, got {steps}")
    return [round(i * (TRAINED_STEPS - 1) / (steps - 1)) for i in range(steps)]


@dataclass(frozen=True)
class Moments:
    """A diagonal normal distribution, "n d" each.

    Attributes:
        mean: its centre.
        log_variance: of each number.
    """

    mean: Tensor
    log_variance: Tensor


@dataclass(frozen=True)
class Diffusion:
    """A process over some of the trained steps; step 0 is the least noisy.

    Attributes:
        times: t of each step i.
        levels: share of the signal's power that is left at each step, float64.
        betas: share that noise takes in each step, float64.
    """

    times: tuple[int, ...]
    levels: Tensor
    betas: Tensor

    @classmethod
    def over(cls, times: Sequence[int]) -> "Diffusion":
        """Keep these of the trained steps, rising, with the levels they have."""
        levels = (1 - _cosine_betas()).cumprod(0)[list(times)]
        return cls(tuple(times), levels, 1 - levels / _before(levels))

    @property
    def posterior_log_variance(self) -> Tensor:
        """Log-variance of a step back from known ends; step 0, which has none, takes step 1's."""
        variance = self.betas * (1 - _before(self.levels)) / (1 - self.levels)
        return torch.cat([variance[1:2], variance[1:]]).log()

    def noised(self, clean: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """Mix "n d" with noise as it is at the steps "n"."""
        return _at(self.levels.sqrt(), i) * clean + _at((1 - self.levels).sqrt(), i) * noise

    def clean(self, x: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """What "n d" at the steps "n" is without its noise; not clamped."""
        inverse = 1 / self.levels
        return _at(inverse.sqrt(), i) * x - _at((inverse - 1).sqrt(), i) * noise

    def back(self, clean: Tensor, x: Tensor, i: Tensor) -> Moments:
        """One step back from "n d" at the steps "n", when the clean vectors are known."""
        before = _before(self.levels)
        of_clean = self.betas * before.sqrt() / (1 - self.levels)
        of_x = (1 - before) * (1 - self.betas).sqrt() / (1 - self.levels)
        mean = _at(of_clean, i) * clean + _at(of_x, i) * x
        return Moments(mean, _at(self.posterior_log_variance, i).expand_as(mean))

    def predicted_back(self, clean: Tensor, variance: Tensor, x: Tensor, i: Tensor) -> Moments:
        """The same with predicted ends; `variance` "n d" is -1 at the least and 1 at the most."""
        known = self.back(clean, x, i)
        share = (variance + 1) / 2
        largest = _at(self.betas.log(), i)
        return Moments(known.mean, share * largest + (1 - share) * known.log_variance)


def refiner_loss(
    diffusion: Diffusion, clean: Tensor, i: Tensor, noise: Tensor, predicted: Tensor
) -> Tensor:
    """Squared error of the noise plus the variational bound, which trains the variance alone.

    Args:
        diffusion: over all trained steps.
        clean: "n d".
        i: "n", the steps.
        noise: "n d", with which `clean` was mixed.
        predicted: "n 2d", noise and variance of the network for the mixture.

    Returns:
        "n", the means over d.
    """
    x = diffusion.noised(clean, i, noise)
    noise_predicted, variance = predicted.chunk(2, dim=-1)
    clean_predicted = diffusion.clean(x, i, noise_predicted.detach())
    ours = diffusion.predicted_back(clean_predicted, variance, x, i)
    distance = _divergence(diffusion.back(clean, x, i), ours)
    likelihood = _log_likelihood(clean, ours)
    bound = torch.where((i == 0)[:, None], -likelihood, distance).mean(-1) / math.log(2)
    return (noise - noise_predicted).square().mean(-1) + bound


def _divergence(true: Moments, ours: Moments) -> Tensor:
    """Kullback-Leibler divergence of each number, in nats."""
    difference = ours.log_variance - true.log_variance
    squares = (true.mean - ours.mean).square() * (-ours.log_variance).exp()
    return 0.5 * (difference - 1 + (-difference).exp() + squares)


def _log_likelihood(x: Tensor, ours: Moments) -> Tensor:
    """Log-probability of each number's bin, one of 255 over [-1, 1] as in a picture."""
    precision = (-0.5 * ours.log_variance).exp()
    centred = x - ours.mean
    below = _normal_share(precision * (centred + 1 / 255))
    above = 1 - _normal_share(precision * (centred - 1 / 255))
    inside = below + above - 1
    # The two outer bins reach to infinity.
    share = torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))
    return share.clamp(min=1e-12).log()


def _normal_share(x: Tensor) -> Tensor:
    """Share of a standard normal distribution below x, as it was approximated in training."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _before(levels: Tensor) -> Tensor:
    """The level one step less noisy; before the first there is no noise."""
    return torch.cat([torch.ones(1, dtype=levels.dtype), levels[:-1]])


def _at(table: Tensor, i: Tensor) -> Tensor:
    """Rows of a table for "n" (or one) steps, float32, to multiply "n d"."""
    return F.embedding(i, table.float().to(i.device)[:, None])
