"""`nsarm weights convert`: published files in, a model folder out."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console
from nsarm_cli.errors import WeightsError

if TYPE_CHECKING:
    from nsarm_cli.weights.trust import Digest, Trust

_STAGES = ("checking", "writing", "encoding the prompt")


class Stored(StrEnum):
    """Number formats that are stored."""

    BF16 = "bf16"
    FP32 = "fp32"


def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model; see list.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Its published files: .pth, parts NAME_part_*, folders of shards.",
            show_default="what nsarm weights download or import has fetched",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder to make.",
            metavar="FOLDER",
            show_default="where --model MODEL finds it",
        ),
    ] = None,
    precision: Annotated[
        Stored, typer.Option(help="Number format of the weights on disk.")
    ] = Stored.BF16,
    sha256: Annotated[
        list[str] | None,
        typer.Option(help="Digest of a file, from its publisher; may be repeated.", metavar="HEX"),
    ] = None,
    md5: Annotated[
        list[str] | None,
        typer.Option(help="The same; of parts, that of their join.", metavar="HEX"),
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="Open pickles whose digest nobody states; only if you trust them."
        ),
    ] = False,
) -> None:
    """Convert published files to safetensors that `nsarm upscale` loads.

    Checks digests before a pickle is opened, needs little memory, and can be run again after
    an interruption. Prints the folder.
    """
    from nsarm_cli.runtime import PRECISIONS
    from nsarm_cli.weights.convert import convert as run
    from nsarm_cli.weights.originals import find_originals
    from nsarm_cli.weights.published import published_files
    from nsarm_cli.weights.recipes import find_recipe
    from nsarm_cli.weights.store import Store

    recipe = find_recipe(model)
    given = [_digest("sha256", value) for value in sha256 or ()]
    given += [_digest("md5", value) for value in md5 or ()]
    store = Store()
    found = published_files(store, model)
    if not files and not found.paths:
        raise WeightsError(
            f"{model}: none of its published files is on this machine; "
            f"get them with nsarm weights download {model}, or give them after the model's name"
        )
    trust = _trust(found.known, given, unverified=unverified)
    sources = find_originals(files or found.paths)
    target = out or store.converted(model)
    size = sum(path.stat().st_size for source in sources for path in source.files)
    began = time.perf_counter()
    with console.progress_bar(len(_STAGES)) as bar:

        def on_progress(what: str, share: float) -> None:
            bar.begin(_STAGES.index(what), what)(share)

        run(
            recipe,
            sources,
            target,
            trust=trust,
            dtype=PRECISIONS[precision],
            on_progress=on_progress,
        )
    seconds = time.perf_counter() - began
    console.say(f"{model}: {size / 1e9:.2f} GB converted to {precision} in {seconds:.0f} s")
    console.result(str(target))


def _digest(algorithm: str, value: str) -> "Digest":
    from nsarm_cli.weights.trust import Digest

    try:
        return Digest(algorithm, value.lower())
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=f"--{algorithm}") from error


def _trust(
    known: "tuple[tuple[str, Digest], ...]", given: "list[Digest]", *, unverified: bool
) -> "Trust":
    from nsarm_cli.weights.trust import Trust

    return Trust(known, tuple(given), unverified)
