"""The numbers of `nsarm bench` as lines and tables for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from nsarm_cli.cli import console

if TYPE_CHECKING:
    from nsarm_cli.benchmark.clock import Spread
    from nsarm_cli.benchmark.machine import Machine
    from nsarm_cli.benchmark.picture import PictureReport
    from nsarm_cli.benchmark.stages import StageResult, StagesReport

_GIGA, _MEGA, _MILLI = 1e9, 1e6, 1e-3
_STAGE_COLUMNS = ("tokens", "ms", "least", "most", "GFLOP", "GFLOP/s", "MB", "floor ms", "x floor")


def show_machine(machine: "Machine") -> None:
    """Print what the numbers were measured on."""
    console.result(
        f"{machine.name} ({machine.device}), {machine.threads} threads of "
        f"{machine.processors} processors, {machine.system}, Python {machine.python}, "
        f"PyTorch {machine.pytorch}"
    )


def show_stages(report: "StagesReport") -> None:
    """Print each stage with its time, work and floor."""
    roofline = report.roofline
    console.result(
        f"{report.model} with random weights: {report.parameters:,} parameters in "
        f"{report.weight_bytes / _MEGA:,.0f} MB, {report.precision}"
    )
    console.result(f"{report.batch} x {report.window}x{report.window} pixels; {_runs(report)}")
    console.result(
        f"measured here: {roofline.flop_per_second / _GIGA:,.0f} GFLOP/s in matrix products, "
        f"{roofline.bytes_per_second / _GIGA:,.1f} GB/s in copies"
    )
    table = _table("stage", *_STAGE_COLUMNS)
    for stage in report.stages:
        table.add_row(*_stage_row(stage))
    table.add_section()
    table.add_row(*_stage_row(report.total))
    console.result_table(table)
    _show_memory(report)


def show_picture(facts: Mapping[str, Any], report: "PictureReport") -> None:
    """Print the time of a whole picture beside that of bicubic enlargement.

    Args:
        facts: model, weights, precision, input and output size.
        report: the times.
    """
    sizes = " -> ".join("x".join(map(str, facts[key])) for key in ("input", "output"))
    console.result(
        f"{facts['model']} with {facts['weights']} weights, {facts['precision']}; {sizes} pixels; "
        f"{_runs(report)}"
    )
    table = _table("enlarged by", "seconds", "least", "most")
    ways = ((facts["model"], report.seconds), ("bicubic", report.bicubic_seconds))
    for way, seconds in ways:
        table.add_row(way, *(f"{t:,.4f}" for t in _times(seconds)))
    console.result_table(table)
    _show_memory(report)


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=box.SIMPLE)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _stage_row(stage: "StageResult") -> tuple[str, ...]:
    return (
        stage.name,
        f"{stage.tokens:,}" if stage.tokens else "",
        *(f"{t / _MILLI:,.2f}" for t in _times(stage.seconds)),
        f"{stage.flop / _GIGA:,.1f}",
        f"{stage.flop / _GIGA / stage.seconds.median:,.0f}",
        f"{stage.bytes / _MEGA:,.1f}",
        f"{stage.floor_seconds / _MILLI:,.2f}",
        f"{stage.ratio:,.1f}",
    )


def _times(seconds: "Spread") -> tuple[float, float, float]:
    return seconds.median, seconds.least, seconds.most


def _runs(report: "StagesReport | PictureReport") -> str:
    return f"median of {report.repeat} runs after {report.warmup} to warm up"


def _show_memory(report: "StagesReport | PictureReport") -> None:
    peak = report.peak_memory
    amount = "not known on this system" if peak is None else f"{peak / _MEGA:,.0f} MB"
    console.result(f"peak memory: {amount} ({report.peak_memory_kind})")
