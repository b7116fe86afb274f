"""What the paper reports, as rows beside what was measured here."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nsarm_cli.evaluation.protocol import Protocol

PAPER = "NSARM, arXiv 2510.00820"
_FILE = Path(__file__).parent / "catalogue" / "published.toml"


@dataclass(frozen=True)
class PublishedRow:
    """One method on one set, with the cells that are known.

    Attributes:
        set: its name.
        method: as the source calls it.
        protocol: under which it was measured.
        source: table or figure.
        mean: by measure.
        variance: by measure.
        failures: by level of `robustness.LEVELS`; against that paper's own global mean.
    """

    set: str
    method: str
    protocol: Protocol
    source: str
    mean: dict[str, float]
    variance: dict[str, float]
    failures: dict[str, int]


@dataclass(frozen=True)
class PublishedSpeed:
    """One row of the paper's Table 2.

    Attributes:
        method: as the source calls it.
        seconds: for a picture.
        output: its side in pixels.
        parameters: learned numbers.
        hardware: it ran on.
        source: where it is said, and what the figure leaves out.
    """

    method: str
    seconds: float
    output: int
    parameters: int
    hardware: str
    source: str


@cache
def _document() -> tuple[tuple[PublishedRow, ...], tuple[PublishedSpeed, ...]]:
    with _FILE.open("rb") as file:
        document = tomllib.load(file)
    rows = (
        PublishedRow(
            set=row["set"],
            method=row["method"],
            protocol=Protocol(row["protocol"]),
            source=row["source"],
            mean=row["mean"],
            variance=row.get("variance", {}),
            failures=row.get("failures", {}),
        )
        for row in document["rows"]
    )
    return tuple(rows), tuple(PublishedSpeed(**row) for row in document["speed"])


def published_rows(name: str) -> list[PublishedRow]:
    """Give the rows of a set; none for one that the paper does not have."""
    return [row for row in _document()[0] if row.set == name]


def published_speed() -> list[PublishedSpeed]:
    """Give the paper's speed figures."""
    return list(_document()[1])
