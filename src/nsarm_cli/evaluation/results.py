"""Everything that an evaluation found, as one document, and the files that it is kept in."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from nsarm_cli.errors import ConfigError
from nsarm_cli.evaluation.measures import Measure, Missing
from nsarm_cli.evaluation.robustness import Robustness, Score, greatest_gains, robustness
from nsarm_cli.evaluation.runner import SetResult
from nsarm_cli.evaluation.statistics import (
    Difference,
    Summary,
    paired_difference,
    summarise,
)

FORMAT = 1
"""Of results.json."""


@dataclass(frozen=True)
class SetReport:
    """One set with its statistics.

    Attributes:
        result: what was measured.
        summaries: method -> measure -> summary.
        differences: method -> measure -> `ours` less that method; empty without `ours`.
        ours: the method that others are compared with.
        score: what pictures are ranked by; None when the measures make none.
        robustness: None when no score could be formed.
        gains: pictures where `ours` leads most, with the lead.
    """

    result: SetResult
    summaries: dict[str, dict[str, Summary]]
    differences: dict[str, dict[str, Difference]]
    ours: str
    score: Score | None
    robustness: Robustness | None
    gains: list[tuple[str, float]]

    @property
    def why_unranked(self) -> str:
        """Why failures are not counted, where `robustness` is None."""
        if self.score is None:
            return (
                "Failures are not counted: these measures make no score; add niqe, or lpips or "
                "dists with references."
            )
        return "Failures are not counted: no picture has a score under every method."


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        sets: in the order they were asked for.
        measures: that were computed.
        missing: those that were not, with reasons.
        facts: version, date, machine, model, settings.
        extra: further sections (speed, prompts, sweeps) by name.
    """

    sets: list[SetReport]
    measures: list[Measure]
    missing: list[Missing]
    facts: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)


def analyse(
    result: SetResult, measures: Sequence[Measure], score: Score | None, ours: str
) -> SetReport:
    """Compute the statistics of a set.

    Args:
        result: what was measured.
        measures: that were asked for.
        score: what pictures are ranked by; None leaves the ranking out.
        ours: name of the method that others are compared with.
    """
    names = list(result.rows[ours])
    columns = {
        method: {m.name: [rows[name].get(m.name) for name in names] for m in measures}
        for method, rows in result.rows.items()
    }
    summaries: dict[str, dict[str, Summary]] = {}
    differences: dict[str, dict[str, Difference]] = {}
    for method, values in columns.items():
        summaries[method] = {n: s for n, v in values.items() if (s := summarise(v)) is not None}
        if method == ours:
            continue
        differences[method] = {}
        for m in measures:
            mine, theirs = columns[ours][m.name], values[m.name]
            found = paired_difference(mine, theirs, is_higher_better=m.is_higher_better)
            if found is not None:
                differences[method][m.name] = found
    return SetReport(
        result=result,
        summaries=summaries,
        differences=differences,
        ours=ours,
        score=score,
        robustness=None if score is None else robustness(result.rows, score),
        gains=[] if score is None else greatest_gains(result.rows, score, ours),
    )


def ranking(summaries: Mapping[str, Mapping[str, Summary]], measure: Measure) -> list[str]:
    """Name the methods that have a measure, the best mean first."""
    known = {m: s[measure.name].mean for m, s in summaries.items() if measure.name in s}
    return sorted(known, key=lambda m: known[m], reverse=measure.is_higher_better)


def as_json(report: Report) -> dict[str, Any]:
    """Turn a report into what results.json holds."""
    return {
        "format": FORMAT,
        **report.facts,
        "measures": [
            {
                "name": m.name,
                "title": m.title,
                "higher_is_better": m.is_higher_better,
                "variant": m.variant,
                "version": m.version,
            }
            for m in report.measures
        ],
        "not_measured": [asdict(entry) for entry in report.missing],
        "sets": [_set(entry) for entry in report.sets],
        **report.extra,
    }


def _set(entry: SetReport) -> dict[str, Any]:
    result, found = entry.result, entry.robustness
    return {
        "name": result.picture_set.name,
        "source": result.picture_set.source,
        "pictures": len(result.picture_set.items),
        "protocol": result.protocol.value,
        "protocol_in_words": result.described,
        "methods": {
            method: {
                "what": result.notes[method],
                "summary": {n: asdict(s) for n, s in summaries.items()},
                "whole_set": result.whole.get(method, {}),
                "pictures": result.rows[method],
            }
            for method, summaries in entry.summaries.items()
        },
        "compared": entry.ours,
        "differences": {
            method: {n: asdict(d) for n, d in found_differences.items()}
            for method, found_differences in entry.differences.items()
        },
        "robustness": None
        if found is None
        else {
            "score": found.score.title,
            "is_the_papers_score": found.score.is_paper,
            "global_mean": found.global_mean,
            "methods": {m: asdict(s) for m, s in found.methods.items()},
            "without_a_score": list(found.missing),
        },
        "greatest_gains": [{"picture": name, "lead": lead} for name, lead in entry.gains],
    }


def as_table(report: Report) -> tuple[list[str], list[list[Any]]]:
    """Lay out one line per set, method and picture: header and lines."""
    names = [m.name for m in report.measures]
    lines = [
        [entry.result.picture_set.name, method, picture, *(row.get(n) for n in names)]
        for entry in report.sets
        for method, rows in entry.result.rows.items()
        for picture, row in rows.items()
    ]
    return ["set", "method", "picture", *names], lines


def as_csv(report: Report) -> str:
    """Lay out one line per set, method and picture; what has no value is empty."""
    header, lines = as_table(report)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if cell is None else cell for cell in line] for line in lines])
    return text.getvalue()


def as_parquet(report: Report) -> bytes:
    """The same table as Parquet.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")  # optional
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed; run: pip install 'nsarm[parquet]', "
            "or leave --parquet out"
        ) from error
    header, lines = as_table(report)
    columns = dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))
    types = {n: pa.string() if n in header[:3] else pa.float64() for n in header}
    arrays = [pa.array(columns[n], types[n]) for n in header]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=header), buffer)
    return bytes(buffer.getvalue())


def to_text(document: Mapping[str, Any]) -> str:
    """Write JSON for people and programs; it has no numbers that JSON lacks."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
