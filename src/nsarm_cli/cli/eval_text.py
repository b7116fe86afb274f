"""The tables of `nsarm eval` on the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from nsarm_cli.cli import console

if TYPE_CHECKING:
    from nsarm_cli.evaluation.measures import Measure
    from nsarm_cli.evaluation.results import Report, SetReport

_BEST, _SECOND = "*", "+"


def show(report: "Report") -> None:
    """Print the means, the comparison and the failures of each set."""
    for entry in report.sets:
        name = entry.result.picture_set.name
        count = len(entry.result.picture_set.items)
        console.result(f"{name}: {count} pictures; {entry.result.described}")
        console.result_table(_means(entry, report.measures))
        if entry.differences:
            console.result_table(_differences(entry, report.measures))
        if entry.robustness is None:
            console.result(entry.why_unranked)
        else:
            console.result_table(_failures(entry))
        for method, whole in entry.result.whole.items():
            for name, value in whole.items():
                console.result(f"{name.upper()} of {method} over the whole set: {value:.2f}")
    for sweep in report.extra.get("sweeps", ()):
        console.result_table(_sweep(sweep))
    if "speed" in report.extra:
        console.result_table(_speed(report.extra["speed"]))
    console.result(f"{_BEST} best, {_SECOND} second best of the measured methods")


def _means(entry: "SetReport", measures: "list[Measure]") -> Table:
    from nsarm_cli.evaluation.published import PAPER, published_rows
    from nsarm_cli.evaluation.results import ranking

    shown = [m for m in measures if any(m.name in s for s in entry.summaries.values())]
    table = Table(box=box.SIMPLE_HEAD, title="Means (variance)", title_justify="left")
    table.add_column("method")
    for m in shown:
        table.add_column(f"{m.title} {'↑' if m.is_higher_better else '↓'}", justify="right")
    ranks = {m.name: ranking(entry.summaries, m) for m in shown}
    total = len(entry.result.picture_set.items)
    for method, summaries in entry.summaries.items():
        cells = []
        for m in shown:
            s = summaries.get(m.name)
            place = ranks[m.name].index(method) if s is not None else -1
            mark = _BEST if place == 0 else _SECOND if place == 1 else ""
            over = "" if s is None or s.n == total else f" of {s.n}"
            cells.append(
                "-"
                if s is None
                else f"{s.mean:.{m.decimals}f} ({s.variance:.{m.decimals}f}){over}{mark}"
            )
        table.add_row(method, *cells)
    published = [r for r in published_rows(entry.result.picture_set.name) if r.mean]
    for row in published:
        numbers = (
            f"{row.mean[m.name]:.{m.decimals}f}" if m.name in row.mean else "" for m in shown
        )
        table.add_row(f"{row.method}, published, {row.protocol.value}", *numbers, style="dim")
    if published:
        table.caption = f"Published rows: {PAPER}, or as their names say."
        table.caption_justify = "left"
    return table


def _differences(entry: "SetReport", measures: "list[Measure]") -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{entry.ours} less the others, with 95 % bootstrap intervals",
        title_justify="left",
    )
    for column in ("against", "measure", "difference", "interval", "better on", "verdict"):
        table.add_column(column, justify="right" if column == "difference" else "left")
    for method, found in entry.differences.items():
        for m in measures:
            if (d := found.get(m.name)) is not None:
                table.add_row(
                    method,
                    m.title,
                    f"{d.mean:+.{m.decimals}f}",
                    f"{d.low:+.{m.decimals}f} to {d.high:+.{m.decimals}f}",
                    f"{d.better * d.n:.0f} of {d.n}",
                    d.verdict,
                )
    return table


def _failures(entry: "SetReport") -> Table:
    from nsarm_cli.evaluation.robustness import LEVELS

    found = entry.robustness
    assert found is not None  # noqa: S101  (the caller checked)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Robustness by {found.score.title}; global mean {found.global_mean:.4f}",
        title_justify="left",
    )
    table.add_column("method")
    for column in ("mean", "variance", *(f"{k} < {v:.1f}" for k, v in LEVELS.items())):
        table.add_column(column, justify="right")
    table.add_column("worst pictures")
    for method, spread in found.methods.items():
        table.add_row(
            method,
            f"{spread.mean:.4f}",
            f"{spread.variance:.4f}",
            *(str(count) for count in spread.failures.values()),
            ", ".join(spread.worst),
        )
    return table


def _sweep(sweep: "Mapping[str, Any]") -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{sweep['set']} under growing {sweep['kind']} ({sweep['unit']}): mean score, "
        f"{sweep['score']}",
        title_justify="left",
    )
    table.add_column("method")
    for strength in sweep["strengths"]:
        table.add_column(f"{strength:g}", justify="right")
    for method, values in sweep["score_means"].items():
        table.add_row(method, *("-" if v is None else f"{v:.4f}" for v in values))
    return table


def _speed(speed: "Mapping[str, Any]") -> Table:
    sizes = " to ".join(f"{w}x{h}" for w, h in (speed["input"], speed["output"]))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Speed of {speed['model']}, {sizes}, median of {speed['repeat']} runs",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage in speed["stages"]:
        table.add_row(stage["stage"], f"{stage['seconds']['median']:.4f}")
    table.add_row("one picture", f"{speed['seconds']['median']:.4f}")
    for row in speed["published"]:
        name = f"{row['method']}, published, {row['output']} pixels on {row['hardware']}"
        table.add_row(name, f"{row['seconds']:g}", style="dim")
    peak, count = speed["peak_memory"], speed["parameters"]
    memory = "not known" if peak is None else f"{peak / 1e6:,.0f} MB {speed['peak_memory_kind']}"
    parameters = "not known" if count is None else f"{count:,}"
    table.caption = f"{speed['inside']} Peak memory: {memory}. Parameters: {parameters}."
    return table
