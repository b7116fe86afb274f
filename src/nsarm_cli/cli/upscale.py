"""`nsarm upscale`: photographs in, photographs four times as large out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console, options
from nsarm_cli.cli.trace import check_trace, write_trace
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

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
            help="File (.png, .jpg, .jpeg or .webp) for one picture, or folder.",
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
    sources, targets = _plan(inputs, out, trace, overwrite=overwrite)
    load = _choose(model, device, precision, batch, threads)
    work = _Work(load, seed, temperature, top_p, color, trace, overwrite)
    failures = 0
    with console.progress_bar(len(sources)) as bar:
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
            count = f" ({index + 1} of {len(sources)})" if len(sources) > 1 else ""
            on_progress = bar.begin(index, source.name + count)
            try:
                summary = work.enlarge(source, target, on_progress)
            except ImageError as error:
                failures += 1
                with bar.hidden():
                    console.error(str(error))
            else:
                with bar.hidden():
                    console.say(summary)
                    console.result(str(target))
    if failures:
        if len(sources) > 1:
            console.say(f"{failures} of {len(sources)} pictures failed")
        raise typer.Exit(ImageError.exit_code)


def _plan(
    inputs: Sequence[Path], out: str | None, trace: Path | None, *, overwrite: bool
) -> tuple[list[Path], list[Path]]:
    """Pair inputs with outputs, refusing before any work what could not be written after it."""
    from nsarm_cli.imaging.files import check_output, find_images
    from nsarm_cli.imaging.naming import output_paths

    sources = find_images(inputs)
    targets = output_paths(sources, out, many=len(inputs) > 1 or inputs[0].is_dir())
    for target in targets:
        # Only what exists can be an input; comparing all pairs is slow in a large folder.
        check_output(target, sources if target.exists() else (), overwrite)
    if trace is not None:
        if len(sources) > 1:
            raise typer.BadParameter(
                f"it records one picture, not {len(sources)}; give one INPUT.",
                param_hint="--trace",
            )
        check_trace(trace, [*sources, *targets], overwrite=overwrite)
    return sources, targets


def _choose(
    model: str | None, device: str, precision: str, batch: int | None, threads: int | None
) -> "Callable[[], Upscaler]":
    """Choose where and how to run, say so in one line, and return what loads the model."""
    import torch

    from nsarm_cli.pipeline import DEFAULT_MODEL, Upscaler
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

    def load() -> Upscaler:
        from nsarm_cli.weights.families import load_resolver

        return Upscaler(load_resolver(name, chosen, dtype), chosen, batch=batch)

    return load


@dataclass(frozen=True)
class _Work:
    """What is done with each picture."""

    load: "Callable[[], Upscaler]"
    seed: int
    temperature: float | None
    top_p: float | None
    color: str | None
    trace: Path | None
    overwrite: bool

    @cached_property
    def upscaler(self) -> "Upscaler":
        """The model, read when the first picture has been: broken pictures need none."""
        return self.load()

    def enlarge(self, source: Path, target: Path, on_progress: Callable[[float], None]) -> str:
        """Read, enlarge and write one picture.

        Returns:
            A line about it.

        Raises:
            ImageError: it cannot be read or written.
        """
        from nsarm_cli.imaging.files import check_size, read_image, write_image

        image = read_image(source)
        width, height = (self.upscaler.scale * side for side in image.size)
        check_size(target, width, height)
        sampling = self.upscaler.sampling
        if self.temperature is not None:
            sampling = replace(sampling, temperature=self.temperature)
        if self.top_p is not None:
            sampling = replace(sampling, top_p=self.top_p)
        tensors: dict[str, Tensor] | None = None if self.trace is None else {}
        began = time.perf_counter()
        picture = self.upscaler.upscale(
            image,
            seed=self.seed,
            sampling=sampling,
            color=self.color,
            on_progress=on_progress,
            trace=tensors,
        )
        seconds = time.perf_counter() - began
        write_image(picture, target, overwrite=self.overwrite)
        if self.trace is not None and tensors is not None:
            facts = {"input": source.name, "seed": self.seed, "sampling": sampling}
            write_trace(tensors, self.trace, facts, overwrite=self.overwrite)
        size = f"{image.width}x{image.height}"
        return f"{source}: {size} -> {width}x{height} in {seconds:.1f} s"
