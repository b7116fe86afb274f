"""`nsarm train`: the stages that make a model."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console, train_data, train_features, train_text
from nsarm_cli.cli.options import Device, Threads
from nsarm_cli.cli.train_export import export
from nsarm_cli.cli.train_plan import DryRun, Memory, WorldSize, show_plan

if TYPE_CHECKING:
    from nsarm_cli.training.config import RunConfig
    from nsarm_cli.training.loop import Progress

app = typer.Typer()
stages = typer.Typer(
    help="Train a model of your own: tokenizer, prior, stage1, stage2, decoder; or varsr.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(stages, name="train")
stages.add_typer(train_data.app)
stages.add_typer(train_features.app)


TrainingData = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Folder, .jsonl list or .tar shard (path, pattern, URL, pipe:COMMAND); repeatable.",
        metavar="PATH",
    ),
]
Validation = Annotated[
    list[str] | None,
    typer.Option("--val", help="Pictures for validation, never trained on; may be repeated."),
]
Settings = Annotated[
    str,
    typer.Option(
        "--config", help="TOML file with the settings, or the name of a preset.", metavar="FILE"
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", help="Folder of the run: settings, checkpoint, pictures, model."),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--model", help="Start from this model folder or preset instead of the settings'."
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Updates in all, instead of the settings'.", min=1, metavar="N")
]
Perceptual = Annotated[
    Path | None,
    typer.Option(help="LPIPS weights (safetensors), instead of the settings'.", metavar="FILE"),
]


@stages.command()
def tokenizer(
    *,
    data: TrainingData = None,
    config: Settings = "nano-tokenizer",
    out: Out = Path("runs/tokenizer"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    perceptual_weights: Perceptual = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Train the autoencoder whose bits the model predicts."""
    from nsarm_cli.training.config import TokenizerConfig

    options = _given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = _settings(TokenizerConfig, config, options)
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        _train(settings, data, val, out, device=device, threads=threads)


@stages.command()
def prior(
    *,
    data: TrainingData = None,
    config: Settings = "nano-prior",
    out: Out = Path("runs/prior"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Train the transformer on good pictures alone, by cross-entropy; may be left out."""
    from nsarm_cli.training.config import PriorConfig

    settings = _settings(PriorConfig, config, _given(model=model, steps=steps))
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        _train(settings, data, val, out, device=device, threads=threads)


@stages.command()
def stage1(
    *,
    data: TrainingData = None,
    config: Settings = "nano-stage1",
    out: Out = Path("runs/stage1"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    perceptual_weights: Perceptual = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Train the transformation network, by mean squared error."""
    from nsarm_cli.training.config import Stage1Config

    options = _given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = _settings(Stage1Config, config, options)
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        _train(settings, data, val, out, device=device, threads=threads)


@stages.command()
def stage2(
    *,
    data: TrainingData = None,
    config: Settings = "nano-stage2",
    out: Out = Path("runs/stage2"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    perceptual_weights: Perceptual = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Train the transformer, by cross-entropy on labels modified by the transformed scales."""
    from nsarm_cli.training.config import Stage2Config

    options = _given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = _settings(Stage2Config, config, options)
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        _train(settings, data, val, out, device=device, threads=threads)


@stages.command()
def decoder(
    *,
    data: TrainingData = None,
    config: Settings = "nano-decoder",
    out: Out = Path("runs/decoder"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    perceptual_weights: Perceptual = None,
    dists_weights: Annotated[
        Path | None,
        typer.Option(help="DISTS weights (safetensors), instead of the settings'.", metavar="FILE"),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Adapt the decoder to the bits that the whole model samples."""
    from nsarm_cli.training.config import DecoderConfig

    options = _given(
        model=model,
        steps=steps,
        perceptual_weights=perceptual_weights,
        dists_weights=dists_weights,
    )
    settings = _settings(DecoderConfig, config, options)
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        _train(settings, data, val, out, device=device, threads=threads)


@stages.command()
def varsr(
    *,
    data: TrainingData = None,
    negatives: Annotated[
        list[str] | None,
        typer.Option(
            help="Pictures of poor quality, which are learned as such; as for --data.",
            metavar="PATH",
        ),
    ] = None,
    config: Settings = "varsr",
    out: Out = Path("runs/varsr"),
    val: Validation = None,
    model: Start = None,
    steps: Steps = None,
    perceptual_weights: Perceptual = None,
    device: Device = "auto",
    threads: Threads = None,
    dry_run: DryRun = False,
    world_size: WorldSize = 1,
    memory: Memory = None,
) -> None:
    """Train VARSR's transformer and refiner together, by cross-entropy and a diffusion loss."""
    from nsarm_cli.training.varsr_settings import VarsrStageConfig

    options = _given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = _settings(VarsrStageConfig, config, options)
    if dry_run:
        show_plan(settings, world_size, memory, device, threads)
    else:
        poor = negatives or []
        _train(settings, data, val, out, device=device, threads=threads, poor=poor)


stages.command()(export)


def _given(**options: str | Path | int | None) -> dict[str, str | int]:
    """Settings that options of the command replace."""
    given = {name: value for name, value in options.items() if value is not None}
    return {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}


def _settings(kind: "type[RunConfig]", source: str, options: dict[str, str | int]) -> "RunConfig":
    import dataclasses

    from nsarm_cli.training.settings_file import read_config

    return dataclasses.replace(read_config(kind, source), **options)  # type: ignore[arg-type]


def _train(
    settings: "RunConfig",
    data: list[str] | None,
    val: list[str] | None,
    out: Path,
    *,
    device: str,
    threads: int | None,
    poor: Sequence[str] = (),
) -> None:
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

        def report(progress: "Progress") -> None:
            if not ranks.is_first:
                return
            bar.begin(progress.step, train_text.label(progress))
            if progress.is_due:
                with bar.hidden():
                    console.say(train_text.line(progress))

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
