"""`nsarm bench`: how long a model takes, stage by stage, beside what the machine allows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsarm_cli import __version__
from nsarm_cli.cli import bench_text, console, options

if TYPE_CHECKING:
    import torch

    from nsarm_cli.benchmark.picture import PictureReport
    from nsarm_cli.benchmark.stages import StagesReport
    from nsarm_cli.models.interface import SuperResolver

app = typer.Typer()


class Stored(StrEnum):
    """How matrices are stored: the values of `memory.settings.Quantize`."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


@app.command()
def bench(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a preset; with --picture also of a model, or a model folder.",
            show_default="nsarm-nano",
            metavar="MODEL",
        ),
    ] = None,
    picture: Annotated[
        int | None,
        typer.Option(
            help="Time a whole picture of this side in pixels instead of the stages of a window.",
            min=1,
            show_default=False,
            metavar="SIDE",
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows computed at once.",
            min=1,
            metavar="N",
            show_default="1; with --picture as nsarm upscale does",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(help="Runs that count.", min=1, metavar="N")] = 5,
    warmup: Annotated[
        int, typer.Option(help="Runs before them that do not count.", min=0, metavar="N")
    ] = 1,
    threads: options.Threads = None,
    quantize: Annotated[
        Stored,
        typer.Option(help="Store the matrices of the transformer's blocks in fewer bits."),
    ] = Stored.NONE,
    compile: options.Compile = False,  # noqa: A002 (the word users know)
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Measure speed and memory.

    Times each stage of enlarging one batch of windows, with random weights, beside its floor:
    the time that its arithmetic and memory traffic take at the matrix product and copy rates
    measured on this device. With --picture, times a whole picture from memory to memory, with
    a model's own weights, beside bicubic enlargement.
    """
    from nsarm_cli.benchmark.machine import Machine
    from nsarm_cli.pipeline import DEFAULT_MODEL

    name = model or DEFAULT_MODEL
    runs = _Runs(
        *_choose(name, device, precision, threads), batch, warmup, repeat, quantize, compile
    )
    report: dict[str, Any]
    show: Callable[[], None]
    if picture is None:
        stages = _measure_stages(name, runs)
        report, show = asdict(stages), partial(bench_text.show_stages, stages)
    else:
        facts, whole = _measure_picture(name, picture, runs)
        report, show = facts | asdict(whole), partial(bench_text.show_picture, facts, whole)
    machine = Machine.describe(runs.device)
    if as_json:
        head = {
            "nsarm": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(machine),
            "measured": "stages" if picture is None else "picture",
            "quantize": quantize.value,
            "compiled": compile,
        }
        console.result(json.dumps(head | report, indent=2))
    else:
        bench_text.show_machine(machine)
        show()


@dataclass(frozen=True)
class _Runs:
    """Where and how often to run."""

    device: "torch.device"
    dtype: "torch.dtype"
    batch: int | None
    warmup: int
    repeat: int
    quantize: Stored
    compiled: bool

    def prepare(self, resolver: "SuperResolver") -> None:
        """Quantise and compile a model, as asked."""
        from nsarm_cli.acceleration import accelerate
        from nsarm_cli.memory.placement import Offloadable
        from nsarm_cli.memory.quantize import quantize_blocks
        from nsarm_cli.memory.settings import Quantize

        if isinstance(resolver, Offloadable):
            quantize_blocks(resolver.transformer.blocks, Quantize(self.quantize), self.device)
        if self.compiled:
            accelerate(resolver, self.device)

    @contextmanager
    def counted(self) -> Iterator[Callable[[int], None]]:
        """Show a bar that is told of finished runs."""
        total = self.warmup + self.repeat
        with console.progress_bar(total) as bar:
            bar.begin(0, "preparing")

            def on_run(done: int) -> None:
                bar.begin(done, f"run {min(done + 1, total)} of {total}")

            yield on_run


def _choose(
    model: str, device: str, precision: str, threads: int | None
) -> "tuple[torch.device, torch.dtype]":
    """Choose where and in which precision to run, and say so in one line."""
    import torch

    from nsarm_cli.runtime import choose_device, choose_dtype, keep_freed_memory

    if threads is not None:
        torch.set_num_threads(threads)
    chosen, why_device = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    dtype, why_dtype = choose_dtype(precision, chosen)
    console.say(
        f"model {model}, device {chosen} ({why_device}), "
        f"precision {str(dtype).removeprefix('torch.')} ({why_dtype})"
    )
    return chosen, dtype


def _measure_stages(model: str, runs: _Runs) -> "StagesReport":
    from nsarm_cli.benchmark.stages import measure_stages
    from nsarm_cli.imaging.color import match_color

    with runs.counted() as on_run:
        return measure_stages(
            model,
            runs.device,
            runs.dtype,
            match_color,
            batch=runs.batch or 1,
            warmup=runs.warmup,
            repeat=runs.repeat,
            on_run=on_run,
            prepare=runs.prepare,
        )


def _measure_picture(model: str, side: int, runs: _Runs) -> "tuple[dict[str, Any], PictureReport]":
    """Measure a whole picture; the facts say which."""
    import torch
    from PIL import Image

    from nsarm_cli.benchmark.picture import measure_picture
    from nsarm_cli.imaging.tensors import to_image
    from nsarm_cli.pipeline import Upscaler
    from nsarm_cli.runtime import window_generator

    resolver, weights = _load(model, runs)
    runs.prepare(resolver)
    upscaler = Upscaler(resolver, runs.device, batch=runs.batch)
    noise = torch.rand(3, side, side, generator=window_generator(0, 0))
    image = to_image(noise * 2 - 1)  # the time does not depend on what a picture shows
    large = (side * upscaler.scale, side * upscaler.scale)
    with runs.counted() as on_run:
        report = measure_picture(
            lambda: upscaler.upscale(image),
            lambda: image.resize(large, Image.Resampling.BICUBIC),
            runs.device,
            warmup=runs.warmup,
            repeat=runs.repeat,
            on_run=on_run,
        )
    facts = {
        "model": model,
        "weights": weights,
        "precision": str(runs.dtype).removeprefix("torch."),
        "input": list(image.size),
        "output": list(large),
    }
    return facts, report


def _load(model: str, runs: _Runs) -> "tuple[SuperResolver, str]":
    """A model with its weights, or a preset that has none with random ones."""
    from nsarm_cli.benchmark.families import build_subject, builders
    from nsarm_cli.weights.catalog import load_catalog
    from nsarm_cli.weights.families import load_resolver

    if model in builders() and model not in load_catalog() and not Path(model).is_dir():
        return build_subject(model, runs.device, runs.dtype).resolver, "random"
    return load_resolver(model, runs.device, runs.dtype), "its own"
