"""Means, variances, and whether a difference between two methods is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 1_000  # resamples at once, so that memory stays small with thousands of pictures


@dataclass(frozen=True)
class Summary:
    """Of one measure over the pictures of a set.

    Attributes:
        n: pictures that have a value.
        mean: of them.
        variance: mean squared distance from the mean (divided by n).
        error: standard error of the mean; None for a single picture.
        least: smallest value.
        greatest: largest value.
    """

    n: int
    mean: float
    variance: float
    error: float | None
    least: float
    greatest: float


def summarise(values: Sequence[float | None]) -> Summary | None:
    """Summarise what has a value; None when nothing has."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return None
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
    return Summary(
        n=len(known),
        mean=float(known.mean()),
        variance=float(known.var()),
        error=error,
        least=float(known.min()),
        greatest=float(known.max()),
    )


@dataclass(frozen=True)
class Difference:
    """Of two methods on the same pictures.

    Attributes:
        n: pictures that both have a value for.
        mean: of the differences, first method less second.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: its upper end.
        better: share of the pictures on which the first method is better.
        verdict: "better" or "worse" where the interval leaves out 0, else "unclear".
    """

    n: int
    mean: float
    low: float
    high: float
    better: float
    verdict: str


def paired_difference(
    a: Sequence[float | None],
    b: Sequence[float | None],
    *,
    is_higher_better: bool,
    seed: int = 0,
) -> Difference | None:
    """Compare two methods picture by picture.

    Args:
        a: one value per picture.
        b: the other method's, in the same order.
        is_higher_better: which way the measure points.
        seed: of the resamples of the pictures.

    Returns:
        The comparison; None when fewer than two pictures have both values.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if len(pairs) < 2:
        return None
    d = np.array([x - y for x, y in pairs])
    rng = np.random.default_rng(seed)
    means: NDArray[np.float64] = np.concatenate(
        [d[rng.integers(len(d), size=(_CHUNK, len(d)))].mean(1) for _ in range(RESAMPLES // _CHUNK)]
    )
    low, high = (float(x) for x in np.quantile(means, [0.025, 0.975]))
    gain = d if is_higher_better else -d
    verdict = "unclear" if low <= 0 <= high else "better" if gain.mean() > 0 else "worse"
    return Difference(len(d), float(d.mean()), low, high, float((gain > 0).mean()), verdict)
