"""`nsarm train export`: from the folder of a run to a model for others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nsarm_cli.cli import console
from nsarm_cli.cli.options import ColorOption, Temperature, TopP


class StoredPrecision(StrEnum):
    """Number formats of exported weights."""

    BF16 = "bf16"
    FP32 = "fp32"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the model to.")],
    *,
    precision: Annotated[
        StoredPrecision, typer.Option(help="Number format of the stored weights.")
    ] = StoredPrecision.BF16,
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the moving average that the run kept.")
    ] = False,
    temperature: Temperature = None,
    top_p: TopP = None,
    color: ColorOption = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Upload it to the Hugging Face Hub under this name.", metavar="USER/REPO"
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: nobody else sees a new repository.")
    ] = False,
) -> None:
    """Write the model of a run for others, with its default settings and a model card."""
    from dataclasses import replace

    from nsarm_cli.runtime import PRECISIONS
    from nsarm_cli.training.export import export as write
    from nsarm_cli.training.export import publish
    from nsarm_cli.weights.folder import read_any_config
    from nsarm_cli.weights.snapshot import is_repository

    if private and push is None:
        raise typer.BadParameter("it needs --push.", param_hint="--private")
    if push is not None and not is_repository(push):
        raise typer.BadParameter(f"{push!r} is not USER/REPO.", param_hint="--push")
    sampling = read_any_config(run).sampling
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    if top_p is not None:
        sampling = replace(sampling, top_p=top_p)
    chosen = None if color is None else color.value
    write(run, out, PRECISIONS[precision.value], sampling, chosen, averaged=ema, repo=push)
    console.result(str(out))
    if push is not None:
        console.result(publish(out, push, private=private))
