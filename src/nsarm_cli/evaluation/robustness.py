"""Robustness: how the score of single pictures is spread, and how often a method fails.

Section 4.1 of the NSARM paper (arXiv 2510.00820). The score of a picture is the mean of CLIPIQA,
MUSIQ / 100, MANIQA and TOPIQ. A picture is a failure of a level when its score is below a share
of the mean score of all methods on the set (Eq. 7).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nsarm_cli.errors import ConfigError

Row = Mapping[str, float | None]
"""Values of one picture by measure."""

PAPER = ("clipiqa", "musiq", "maniqa", "topiq")

LEVELS = {"deficient": 1.0, "poor": 0.9, "collapse": 0.8}
"""Level -> share of the global mean. The counts of the paper's Fig. 4 agree with these three."""


@dataclass(frozen=True)
class Score:
    """What the pictures of a set are ranked by; higher is better.

    Attributes:
        name: of the choice.
        title: for tables, saying what it is.
        is_paper: whether it is the paper's.
        needs: measures that it is made of.
        of: computes it; None where a measure has no value.
    """

    name: str
    title: str
    is_paper: bool
    needs: tuple[str, ...]
    of: Callable[[Row], float | None]


def _paper(row: Row) -> float | None:
    values = [row.get(name) for name in PAPER]
    known = [value for value in values if value is not None]
    if len(known) < len(PAPER):
        return None
    return sum(v / 100 if name == "musiq" else v for name, v in zip(PAPER, known, strict=True)) / 4


def _one_less(name: str) -> Callable[[Row], float | None]:
    def score(row: Row) -> float | None:
        value = row.get(name)
        return None if value is None else 1 - value

    return score


def _inverse_niqe(row: Row) -> float | None:
    value = row.get("niqe")
    return None if value is None or value <= 0 else 1 / value


SCORES = {
    score.name: score
    for score in (
        Score("paper", "mean of CLIPIQA, MUSIQ/100, MANIQA, TOPIQ (Eq. 7)", True, PAPER, _paper),
        Score("lpips", "1 - LPIPS, not the paper's score", False, ("lpips",), _one_less("lpips")),
        Score("dists", "1 - DISTS, not the paper's score", False, ("dists",), _one_less("dists")),
        Score("niqe", "1 / NIQE, not the paper's score", False, ("niqe",), _inverse_niqe),
    )
}
"""By name, the paper's first; the others stand in where its measures are not to be had."""


def choose_score(
    asked: str | None, measured: Sequence[str], *, has_references: bool
) -> Score | None:
    """Pick the score: the one asked for, else the first whose measures there are.

    Args:
        asked: a name of `SCORES`, or None.
        measured: names of the measures that were computed.
        has_references: whether measures that compare with references have values.

    Returns:
        The score; None when none was asked for and the measures make none.

    Raises:
        ConfigError: the name is unknown, or its measures were not computed.
    """
    if asked is not None:
        if asked not in SCORES:
            raise ConfigError(f"score {asked!r} is unknown: choose {', '.join(SCORES)}")
        score = SCORES[asked]
        if lacking := [name for name in score.needs if name not in measured]:
            raise ConfigError(
                f"score {asked} is made of {', '.join(score.needs)}, but {', '.join(lacking)} "
                "cannot be computed here; choose another score or see docs/evaluation.md"
            )
        return score
    usable = (
        score
        for score in SCORES.values()
        if all(name in measured for name in score.needs)
        and (has_references or not {"lpips", "dists"} & set(score.needs))
    )
    return next(usable, None)


@dataclass(frozen=True)
class Spread:
    """The scores of one method on a set.

    Attributes:
        curve: scores from high to low (Fig. 4).
        mean: of them.
        variance: of them (divided by n).
        failures: level -> number of pictures below it.
        worst: names of the worst pictures, the worst first.
    """

    curve: tuple[float, ...]
    mean: float
    variance: float
    failures: dict[str, int]
    worst: tuple[str, ...]


@dataclass(frozen=True)
class Robustness:
    """The scores of all methods on a set.

    Attributes:
        score: what was computed.
        global_mean: over all methods and pictures; the levels are shares of it.
        methods: by name.
        missing: pictures left out since a method has no score for them.
    """

    score: Score
    global_mean: float
    methods: dict[str, Spread]
    missing: tuple[str, ...]


def robustness(
    rows: Mapping[str, Mapping[str, Row]], score: Score, worst: int = 5
) -> Robustness | None:
    """Rank the pictures of a set under each method and count the failures.

    Args:
        rows: method -> picture -> values; the same pictures for all.
        score: what to rank by.
        worst: how many of the worst pictures to name.

    Returns:
        The ranking; None when no picture has a score under every method.
    """
    scores = {m: {name: score.of(row) for name, row in p.items()} for m, p in rows.items()}
    names = list(next(iter(scores.values()), {}))
    missing = tuple(n for n in names if any(s.get(n) is None for s in scores.values()))
    kept = [name for name in names if name not in missing]
    if not kept:
        return None
    table = np.array([[scores[m][name] for name in kept] for m in scores], dtype=np.float64)
    mean = float(table.mean())
    methods = {}
    for method, values in zip(scores, table, strict=True):
        order = np.argsort(values, kind="stable")
        methods[method] = Spread(
            curve=tuple(values[order[::-1]].tolist()),
            mean=float(values.mean()),
            variance=float(values.var()),
            failures={level: int((values < share * mean).sum()) for level, share in LEVELS.items()},
            worst=tuple(kept[i] for i in order[:worst]),
        )
    return Robustness(score, mean, methods, missing)


def greatest_gains(
    rows: Mapping[str, Mapping[str, Row]], score: Score, ours: str, count: int = 5
) -> list[tuple[str, float]]:
    """Name the pictures where a method is furthest ahead of the best other one (B.7 to B.9).

    Returns:
        Names with the lead in score, greatest first; only true leads; empty without another method.
    """
    others = [method for method in rows if method != ours]
    gains = []
    for name, row in rows[ours].items():
        mine = score.of(row)
        theirs = [score.of(rows[m][name]) for m in others]
        known = [value for value in theirs if value is not None]
        if mine is not None and known and len(known) == len(theirs):
            gains.append((name, mine - max(known)))
    return sorted((g for g in gains if g[1] > 0), key=lambda g: -g[1])[:count]
