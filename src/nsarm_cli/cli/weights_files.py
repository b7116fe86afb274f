"""`nsarm weights download`, `verify`, `import` and `remove`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console
from nsarm_cli.errors import WeightsError

if TYPE_CHECKING:
    from nsarm_cli.weights.entries import ModelEntry
    from nsarm_cli.weights.store import Store

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model; see list.")]


def download(
    model: Model,
    *,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Files fetched at once.", min=1, max=16, metavar="N")
    ] = 4,
) -> None:
    """Fetch the published files of a model, and check them.

    What was interrupted goes on where it stopped. Prints the folder of the files.
    """
    from nsarm_cli.weights import download as downloads
    from nsarm_cli.weights.catalog import find_model
    from nsarm_cli.weights.store import Store

    store, entry = Store(), find_model(model)
    if entry.ships:
        console.say(f"{model} comes with nsarm; there is nothing to fetch")
    with console.transfers() as watcher:
        downloads.download(store, entry, watcher, jobs=jobs)
    _finish(store, entry)


def verify(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Name of a model.", show_default="all of them"),
    ] = None,
) -> None:
    """Read all files on this machine again and compare their digests."""
    from nsarm_cli.weights import verify as verifying
    from nsarm_cli.weights.catalog import find_model, load_catalog
    from nsarm_cli.weights.store import State, Store

    store = Store()
    entries = list(load_catalog().values()) if model is None else [find_model(model)]
    problems = 0
    for entry in entries:
        with console.transfers() as watcher:
            found = verifying.verify(store, entry, watcher)
        for error in found:
            console.error(str(error))
        problems += len(found)
        state = store.status(entry).state
        if model is None and state is State.MISSING:
            continue
        console.result(f"{entry.name}: {state.value}")
    if problems:
        raise typer.Exit(WeightsError.exit_code)
    if model is not None and store.status(entries[0]).state is State.MISSING:
        raise WeightsError(
            f"model {model} is not on this machine; get it with: nsarm weights download {model}"
        )


def import_files(
    model: Model,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Files or parts, or folders that hold them."),
    ],
) -> None:
    """Take in files that you fetched yourself, and check them.

    Your files are linked or copied, never moved or changed. Prints the folder of the files.
    """
    from nsarm_cli.weights import importing
    from nsarm_cli.weights.catalog import find_model
    from nsarm_cli.weights.store import Store

    store, entry = Store(), find_model(model)
    with console.transfers() as watcher:
        importing.import_files(store, entry, files, watcher)
    _finish(store, entry)


def remove(
    model: Model,
    *,
    originals: Annotated[
        bool,
        typer.Option("--originals", help="Only the published files; a converted model stays."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete what nsarm has stored of a model, after showing it."""
    from nsarm_cli.weights import removal
    from nsarm_cli.weights.catalog import find_model
    from nsarm_cli.weights.store import Store
    from nsarm_cli.weights.units import format_bytes

    store, entry = Store(), find_model(model)
    plan = removal.plan(store, entry, converted=not originals)
    for path in plan.foreign:
        console.say(f"stays, since nsarm did not make it: {path}")
    for path in plan.linked:
        console.say(f"stays, since only a link to it is in nsarm's folder: {path}")
    if not plan.files:
        console.say(f"nothing is stored of {model}")
        return
    for path in plan.files:
        console.say(f"to delete: {path}")
    console.say(f"{len(plan.files)} files, {format_bytes(plan.size)}")
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("add it to delete without being asked.", param_hint="--yes")
        if not typer.confirm("Delete them?", err=True):
            console.say("nothing was deleted")
            return
    removal.remove(store, entry, plan)
    console.result(f"{model}: removed")


def _finish(store: "Store", entry: "ModelEntry") -> None:
    """Say what there is now, and what comes next."""
    status = store.status(entry)
    if status.runnable is not None:
        console.say(f"{entry.name} is {status.state.value} and ready to run")
        console.result(str(status.runnable))
        return
    folder = store.downloads(entry.name)
    missing = sorted({f.entry.role for f in status.files if not f.paths})
    if missing:
        console.say(f"{entry.name} still lacks: {', '.join(missing)}")
    else:
        console.say(
            f"{entry.name} is {status.state.value}; next: nsarm weights convert {entry.name}"
        )
    console.result(str(folder))
