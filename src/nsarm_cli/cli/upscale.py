"""`nsarm upscale`: photographs in, photographs four times as large out."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console, options, prompts, steering
from nsarm_cli.cli.batch import Batch, Settings
from nsarm_cli.cli.outputs import plan_jobs
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    import torch

    from nsarm_cli.pipeline import Upscaler

app = typer.Typer()


@app.command()
def upscale(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Pictures, or folders of pictures."),
    ],
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            help="File (.png, .jpg, .webp, .tif or .avif) for one picture, or folder.",
            show_default="beside the input, as NAME_x4.png",
            metavar="OUT",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist; never an input.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a model, or a folder with config.json and model.safetensors.",
            show_default="nsarm-nano",
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
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.AUTO,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows computed at once.",
            min=1,
            metavar="N",
            show_default="1 on a processor, 4 on a GPU",
        ),
    ] = None,
    threads: options.Threads = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write logits, bits and codes of the first window to this safetensors file.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Enlarge photographs four times.

    Prints the path of each picture written. Pictures that cannot be read are reported and the
    others still finish; the exit code is then 3.
    """
    steered = steering.Steering(guidance, refiner_steps, refines=not no_refiner)
    steered.check_options(cfg)
    jobs = plan_jobs(inputs, out, trace, overwrite=overwrite)
    chosen = _choose(model, device, precision, threads)
    text = prompts.PromptOptions(
        prompt, prompt_file, prompt_sidecar, prompt_features, negative_prompt, cfg
    )
    words = text.gather([job.source for job in jobs], chosen.name, chosen.device, chosen.dtype)
    settings = Settings(seed, temperature, top_p, color, words, steered, trace, overwrite)
    if Batch(partial(chosen.load, batch), settings).run(jobs):
        raise typer.Exit(ImageError.exit_code)


@dataclass(frozen=True)
class _Choice:
    """Which model runs, where, and in which number format."""

    name: str
    device: "torch.device"
    dtype: "torch.dtype"

    def load(self, batch: int | None) -> "Upscaler":
        """Load the model."""
        from nsarm_cli.pipeline import Upscaler
        from nsarm_cli.weights.families import load_resolver

        return Upscaler(load_resolver(self.name, self.device, self.dtype), self.device, batch=batch)


def _choose(model: str | None, device: str, precision: str, threads: int | None) -> _Choice:
    """Choose where and how to run, and say so in one line."""
    import torch

    from nsarm_cli.pipeline import DEFAULT_MODEL
    from nsarm_cli.runtime import choose_device, choose_dtype

    if threads is not None:
        torch.set_num_threads(threads)
    chosen, why_device = choose_device(device)
    dtype, why_dtype = choose_dtype(precision, chosen)
    why_model = "as asked" if model else "the default: it comes with nsarm; --model takes another"
    name = model or DEFAULT_MODEL
    console.say(
        f"model {name} ({why_model}), device {chosen} ({why_device}), "
        f"precision {str(dtype).removeprefix('torch.')} ({why_dtype})"
    )
    return _Choice(name, chosen, dtype)
