"""Scalar random draws from one sample's generator.

Every choice of a degradation goes through these, so that a sample depends on its own
generator alone. Float64 on the CPU: a seed chooses alike on every device.
"""

from collections.abc import Sequence

import torch


def unit(rng: torch.Generator) -> float:
    """A number uniform in [0, 1)."""
    return float(torch.rand((), generator=rng, dtype=torch.float64))


def uniform(rng: torch.Generator, bounds: tuple[float, float]) -> float:
    """A number uniform between the two bounds."""
    low, high = bounds
    return low + (high - low) * unit(rng)


def chance(rng: torch.Generator, probability: float) -> bool:
    """True with the given probability (0 never, 1 always)."""
    return unit(rng) < probability


def pick(rng: torch.Generator, weights: Sequence[float]) -> int:
    """An index, drawn in proportion to the weights (not negative, some above 0)."""
    level = unit(rng) * sum(weights)
    last = 0
    for index, weight in enumerate(weights):
        if weight > 0:
            last = index
            if level < weight:
                return index
            level -= weight
    return last  # rounding may leave a crumb above the last weight
