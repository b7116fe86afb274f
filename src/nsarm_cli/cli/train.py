"""`nsarm train`: the stages that make a model."""

from pathlib import Path
from typing import Annotated

import typer

from nsarm_cli.cli import train_data, train_features
from nsarm_cli.cli.options import Device, Threads
from nsarm_cli.cli.train_export import export
from nsarm_cli.cli.train_plan import DryRun, Memory, WorldSize, is_plan, show_plan
from nsarm_cli.cli.train_run import given, run_stage, settings_of

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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Train the autoencoder whose bits the model predicts."""
    from nsarm_cli.training.config import TokenizerConfig

    options = given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = settings_of(TokenizerConfig, config, options)
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        run_stage(settings, data, val, out, device=device, threads=threads)


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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Train the transformer on good pictures alone, by cross-entropy; may be left out."""
    from nsarm_cli.training.config import PriorConfig

    settings = settings_of(PriorConfig, config, given(model=model, steps=steps))
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        run_stage(settings, data, val, out, device=device, threads=threads)


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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Train the transformation network, by mean squared error."""
    from nsarm_cli.training.config import Stage1Config

    options = given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = settings_of(Stage1Config, config, options)
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        run_stage(settings, data, val, out, device=device, threads=threads)


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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Train the transformer, by cross-entropy on labels modified by the transformed scales."""
    from nsarm_cli.training.config import Stage2Config

    options = given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = settings_of(Stage2Config, config, options)
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        run_stage(settings, data, val, out, device=device, threads=threads)


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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Adapt the decoder to the bits that the whole model samples."""
    from nsarm_cli.training.config import DecoderConfig

    options = given(
        model=model,
        steps=steps,
        perceptual_weights=perceptual_weights,
        dists_weights=dists_weights,
    )
    settings = settings_of(DecoderConfig, config, options)
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        run_stage(settings, data, val, out, device=device, threads=threads)


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
    world_size: WorldSize = None,
    memory: Memory = None,
) -> None:
    """Train VARSR's transformer and refiner together, by cross-entropy and a diffusion loss."""
    from nsarm_cli.training.varsr_settings import VarsrStageConfig

    options = given(model=model, steps=steps, perceptual_weights=perceptual_weights)
    settings = settings_of(VarsrStageConfig, config, options)
    if is_plan(dry_run, world_size, memory):
        show_plan(settings, world_size or 1, memory, device, threads)
    else:
        poor = negatives or []
        run_stage(settings, data, val, out, device=device, threads=threads, poor=poor)


stages.command()(export)
