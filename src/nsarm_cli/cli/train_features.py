"""`nsarm train features`: captions as features in files, so that training needs no encoder."""

from pathlib import Path
from typing import Annotated

import typer

from nsarm_cli.cli import console
from nsarm_cli.cli.options import Device, Precision, PrecisionOption, Threads
from nsarm_cli.cli.train_data import Data

app = typer.Typer()


@app.command()
def features(
    *,
    data: Data,
    text_encoder: Annotated[
        Path,
        typer.Option(
            help="Folder of a T5 encoder, such as text_encoder of a converted model.",
            metavar="DIR",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the features; may be added to.", metavar="DIR")
    ] = Path("features"),
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What pictures without a caption are given; prompt of the settings.",
            metavar="TEXT",
            show_default="that of the paper",
        ),
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Short captions too, for short_captions above 0.")
    ] = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.AUTO,
    threads: Threads = None,
) -> None:
    """Encode the captions of all pictures once, for features in the settings of training.

    Stopped, it keeps what is done; the same command goes on, and adds what is new.
    """
    import torch

    from nsarm_cli.runtime import choose_device, choose_dtype
    from nsarm_cli.text.encoder import TextEncoder
    from nsarm_cli.training.config import PROMPT
    from nsarm_cli.training.encode import encode_captions
    from nsarm_cli.training.patterns import find_sources

    if threads is not None:
        torch.set_num_threads(threads)
    sources = find_sources(data)
    where, why = choose_device(device)
    dtype, reason = choose_dtype(precision.value, where)
    console.say(f"encoding on {where} ({why}) in {dtype} ({reason})".replace("torch.", ""))
    encoder = TextEncoder.load(text_encoder, where, dtype, resident=True)
    with console.progress_bar(1) as bar:

        def show(done: int) -> None:
            bar.begin(0, f"{done} captions encoded")

        made, kept = encode_captions(
            sources,
            encoder,
            out,
            PROMPT if prompt is None else prompt,
            short=short,
            progress=show,
        )
    console.say(f"{made} captions encoded, {kept} were there already")
    console.result(str(out))
