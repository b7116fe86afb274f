"""Running a stage of `nsarm train`: its settings, what it shows, and how Ctrl-C ends it."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from nsarm_cli.cli import console, train_text
from nsarm_cli.errors import DeviceError

if TYPE_CHECKING:
    from nsarm_cli.training.config import RunConfig
    from nsarm_cli.training.loop import Progress


def given(**options: str | Path | int | None) -> dict[str, str | int]:
    """Settings that options of the command replace."""
    given = {name: value for name, value in options.items() if value is not None}
    return {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}


def settings_of(kind: "type[RunConfig]", source: str, options: dict[str, str | int]) -> "RunConfig":
    """Settings of a class, from a file or a preset, with options in their place.

    Raises:
        ConfigError: no such file, or settings that cannot be.
    """
    import dataclasses

    from nsarm_cli.training.settings_file import read_config

    return dataclasses.replace(read_config(kind, source), **options)  # type: ignore[arg-type]


def run_stage(
    settings: "RunConfig",
    data: list[str] | None,
    val: list[str] | None,
    out: Path,
    *,
    device: str,
    threads: int | None,
    poor: Sequence[str] = (),
) -> None:
    """Run or resume a stage, with a bar and lines on the terminal; Ctrl-C saves and ends it.

    Args:
        settings: of the stage.
        data: pictures to train on.
        val: pictures for validation, or None.
        out: folder of the run.
        device: name of one; see `runtime.choose_device`.
        threads: of a processor; None takes PyTorch's choice.
        poor: pictures of poor quality.

    Raises:
        ConfigError: settings, data and folder do not fit together.
        DeviceError: the device or main memory is full.
    """
    import torch

    from nsarm_cli.training.distributed import joined
    from nsarm_cli.training.runner import train

    if not data:
        raise typer.BadParameter("give the training pictures", param_hint="--data")
    if threads is not None:
        torch.set_num_threads(threads)
    with (
        joined(device) as (ranks, reason),
        _stop_on_interrupt(quiet=not ranks.is_first) as stopping,
        console.progress_bar(settings.steps) as bar,
    ):
        if ranks.is_first:
            console.say(f"training on {ranks.device} ({reason}); settings and checkpoints in {out}")
            if not (out / "checkpoints").exists() and _is_preset(settings.model):
                console.say(train_text.fresh(settings.model))

        def report(progress: "Progress") -> None:
            if not ranks.is_first:
                return
            bar.begin(progress.step, train_text.label(progress))
            if progress.is_due:
                with bar.hidden():
                    console.say(train_text.line(progress))

        with _fitting(out):
            done = train(
                settings,
                data,
                val or [],
                out,
                ranks=ranks,
                report=report,
                should_stop=stopping,
                poor=poor,
            )
    if not ranks.is_first:
        return
    if done < settings.steps:
        console.say(f"stopped and saved after step {done}; the same command goes on from there")
    console.result(str(out))


def _is_preset(model: str) -> bool:
    from nsarm_cli.models.nsarm.config import PRESETS
    from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS

    return model in PRESETS or model in VARSR_PRESETS


@contextmanager
def _fitting(out: Path) -> Iterator[None]:
    """Turn a full memory, of the device or the main one, into an error with its remedies."""
    import torch

    from nsarm_cli.shortage import told_apart

    try:
        with told_apart():
            yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        which = "main memory" if isinstance(error, MemoryError) else "the device's memory"
        raise DeviceError(
            f"{out}: {which} is full; set accumulate higher (parts of a batch, one after the "
            'other), recompute = "full" or a smaller batch (--dry-run counts what each needs) and '
            "run the command again: it goes on from the last checkpoint"
        ) from error


@contextmanager
def _stop_on_interrupt(*, quiet: bool) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request to save and stop after the step."""
    asked: list[int] = []

    def ask(signum: int, _frame: FrameType | None) -> None:
        if asked:  # a second one means now
            signal.signal(signum, before[signal.Signals(signum)])
            raise KeyboardInterrupt
        asked.append(signum)
        if not quiet:
            console.say("stopping after this step")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
