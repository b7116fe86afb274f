"""`nsarm upscale`: photographs in, larger photographs out."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console, memory_options, options, prompts, steering
from nsarm_cli.cli import picture_options as pictures
from nsarm_cli.cli.batch import Batch
from nsarm_cli.cli.dry_run import show_jobs
from nsarm_cli.cli.manifest import Manifest
from nsarm_cli.cli.outputs import OutputOptions
from nsarm_cli.cli.report import Reporter
from nsarm_cli.cli.settings import Settings
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    import torch

    from nsarm_cli.memory.session import Session


app = typer.Typer()


@app.command()
def upscale(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, folders, patterns; - for a list on standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    out: pictures.Out = None,
    overwrite: pictures.Overwrite = False,
    skip_existing: pictures.SkipExisting = False,
    resume: pictures.Resume = None,
    recursive: pictures.Recursive = False,
    files_from: pictures.FilesFrom = None,
    scale: pictures.Scale = None,
    width: pictures.Width = None,
    height: pictures.Height = None,
    max_side: pictures.MaxSide = None,
    format: pictures.FormatOption = None,  # noqa: A002 (the word users know)
    quality: pictures.Quality = None,
    suffix: pictures.Suffix = None,
    output_template: pictures.OutputTemplate = None,
    no_metadata: pictures.NoMetadata = False,
    compare: pictures.Compare = False,
    json: pictures.Json = False,
    dry_run: pictures.DryRun = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a model, a folder with config.json and safetensors, or USER/REPO"
            "[@REVISION] of the Hugging Face Hub.",
            show_default="nsarm-8b where it is installed and a GPU holds it, else nsarm-nano",
            metavar="MODEL",
        ),
    ] = None,
    seed: options.Seed = 0,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    prompt: prompts.Prompt = None,
    prompt_file: prompts.PromptFile = None,
    prompt_sidecar: prompts.PromptSidecar = False,
    prompt_features: prompts.PromptFeatures = None,
    negative_prompt: prompts.NegativePrompt = None,
    cfg: prompts.Cfg = None,
    guidance: steering.Guidance = None,
    refiner_steps: steering.RefinerSteps = None,
    no_refiner: steering.NoRefiner = False,
    color: options.ColorOption = None,
    offload: memory_options.OffloadOption = memory_options.OffloadChoice.AUTO,
    quantize: memory_options.QuantizeOption = memory_options.QuantizeChoice.AUTO,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows computed at once.",
            min=1,
            metavar="N",
            show_default="1 on a processor, up to 4 on a GPU",
        ),
    ] = None,
    threads: options.Threads = None,
    compile: options.Compile = False,  # noqa: A002 (the word users know)
    memory: memory_options.Memory = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write logits, bits and codes of the first window to this safetensors file.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Enlarge photographs.

    Prints the path of each picture written. Pictures that cannot be read are reported and the
    others still finish; the exit code is then 3.
    """
    from nsarm_cli.imaging.sizes import Size

    if memory is not None and not dry_run:
        raise typer.BadParameter("it is for --dry-run alone.", param_hint="--memory")
    steered = steering.Steering(guidance, refiner_steps, refines=not no_refiner)
    steered.check_options(cfg)
    guided = prompts.is_guided_by(cfg) if guidance is None else guidance > 0
    room = memory_options.MemoryOptions(offload, quantize, batch, guided, memory)
    size = Size(scale, width, height, max_side)
    named = OutputOptions(
        inputs or [], files_from, out, recursive, overwrite, skip_existing,
        format, suffix, output_template, seed, size, trace, compare,
    )  # fmt: skip
    manifest = None if resume is None else Manifest(resume)
    ours = frozenset() if manifest is None else manifest.outputs
    text = prompts.PromptOptions(
        prompt, prompt_file, prompt_sidecar, prompt_features, negative_prompt, cfg
    )
    if dry_run:
        if named.names_some:
            show_jobs(named.plan(ours, look_only=True), size)
        chosen = _choose(model, device, precision, threads, room)
        room.print_plan(chosen.session(room), with_text=text.needs_encoder(chosen.name))
        return
    jobs = named.plan(ours)
    if not jobs:
        return
    chosen = _choose(model, device, precision, threads, room)
    words = text.gather([job.source for job in jobs], chosen.name, chosen.device, chosen.dtype)
    session = chosen.session(room)
    room.announce(session)
    settings = Settings(
        chosen.name, chosen.digest, str(chosen.device), chosen.precision, session, size, seed,
        temperature, top_p, color, words, steered, quality, not no_metadata, trace, overwrite,
        compile,
    )  # fmt: skip
    if manifest is not None:
        waiting = manifest.remaining(jobs, settings.key)
        if len(waiting) < len(jobs):
            console.say(f"{len(jobs) - len(waiting)} of {len(jobs)} pictures are done already")
        jobs = waiting
    load = partial(memory_options.load, session, compiled=compile)
    reporter = Reporter(json, resumes=manifest is not None)
    if Batch(load, settings, reporter, manifest).run(jobs):
        raise typer.Exit(ImageError.exit_code)


@dataclass(frozen=True)
class _Choice:
    """Which model runs, where, and in which number format."""

    name: str
    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def precision(self) -> str:
        """Name of the number format."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def digest(self) -> str | None:
        """Of the weights; None where they cannot be read, which loading will explain."""
        from nsarm_cli.weights.families import model_identity

        return model_identity(self.name)

    def session(self, room: memory_options.MemoryOptions) -> "Session":
        """How the model fits."""
        return room.session(self.name, self.device, self.dtype)


def _choose(
    model: str | None,
    device: str,
    precision: str,
    threads: int | None,
    room: memory_options.MemoryOptions,
) -> _Choice:
    """Choose where and how to run, and say so in one line."""
    import torch

    from nsarm_cli.runtime import keep_freed_memory
    from nsarm_cli.weights.choice import choose_model

    if threads is not None:
        torch.set_num_threads(threads)
    chosen, why_device = room.choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    dtype, why_dtype = room.choose_dtype(precision, chosen)
    name, why_model = (model, "as asked") if model else choose_model(chosen, dtype, room.fits)
    console.say(
        f"model {name} ({why_model}), device {chosen} ({why_device}), "
        f"precision {str(dtype).removeprefix('torch.')} ({why_dtype})"
    )
    return _Choice(name, chosen, dtype)
