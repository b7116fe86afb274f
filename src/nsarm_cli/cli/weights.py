"""`nsarm weights`: what models there are, and where.

The other commands of the group are functions of their own modules, added at the end.
"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console, weights_files
from nsarm_cli.cli.convert import convert
from nsarm_cli.cli.measures import import_measures
from nsarm_cli.errors import WeightsError

if TYPE_CHECKING:
    from nsarm_cli.weights.store import FileStatus, ModelStatus, Store

app = typer.Typer()
weights_app = typer.Typer(
    help="The weights of models: fetch, check and find them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def list_models(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known.")] = False,
) -> None:
    """Show the models, what is on this machine, and in what state."""
    from rich import box
    from rich.table import Table

    from nsarm_cli.weights.catalog import load_catalog
    from nsarm_cli.weights.store import Store
    from nsarm_cli.weights.units import format_bytes

    store = Store()
    statuses = [store.status(entry) for entry in load_catalog().values()]
    if as_json:
        console.result(json.dumps(_describe(store, statuses), indent=1))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("model", "role", "file", "state", "on disk", "of"):
        table.add_column(column, justify="right" if column in ("on disk", "of") else "left")
    for status in statuses:
        ready = "ready to run" if status.runnable else "not ready to run"
        table.add_row(
            status.entry.name, "", ready, status.state.value, format_bytes(status.held), ""
        )
        for file in status.files:
            size = file.entry.size
            table.add_row(
                "",
                file.entry.role,
                _file_name(file),
                file.state.value,
                format_bytes(file.held),
                "unknown" if size is None else format_bytes(size),
            )
    console.result_table(table)
    console.say(f"folder: {store.root}")


@weights_app.command()
def path(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Name of a model.", show_default="all weights"),
    ] = None,
    *,
    originals: Annotated[
        bool, typer.Option("--originals", help="The files as published, not as converted.")
    ] = False,
) -> None:
    """Print the folder of a model that is ready to run, or of all weights."""
    from nsarm_cli.weights.catalog import find_model
    from nsarm_cli.weights.store import State, Store

    store = Store()
    if model is None:
        console.result(str(store.root))
        return
    status = store.status(find_model(model))
    if status.runnable is not None and not originals:
        console.result(str(status.runnable))
        return
    if status.state is State.MISSING:
        raise WeightsError(
            f"model {model} is not on this machine; get it with: nsarm weights download {model}"
        )
    if not originals:
        console.say(f"{model} is not converted yet; this is the folder of its published files")
    folder = status.runnable if status.entry.ships else store.downloads(model)
    console.result(str(folder))


weights_app.command()(weights_files.download)
weights_app.command()(weights_files.verify)
weights_app.command("import")(weights_files.import_files)
weights_app.command()(weights_files.remove)
weights_app.command()(convert)
weights_app.command("measures")(import_measures)


def _file_name(status: "FileStatus") -> str:
    """Name a file for a table, with the count of its parts where it has come in some."""
    entry = status.entry
    name = str(entry.path)
    if entry.parts is not None and status.paths and status.paths[0].name != entry.path.name:
        return f"{name} (parts: {len(status.paths)})"
    return name


def _describe(store: "Store", statuses: "list[ModelStatus]") -> dict[str, object]:
    return {
        "home": str(store.root),
        "models": [
            {
                "name": status.entry.name,
                "family": status.entry.family,
                "state": status.state.value,
                "runnable": None if status.runnable is None else str(status.runnable),
                "bytes": status.held,
                "files": [
                    {
                        "role": file.entry.role,
                        "path": str(file.entry.path),
                        "state": file.state.value,
                        "bytes": file.held,
                        "on_disk": [str(path) for path in file.paths],
                        "sources": [str(source) for source in file.entry.sources],
                        "size": file.entry.size,
                        "sha256": file.entry.sha256,
                        "md5": file.entry.md5,
                        "licence": file.entry.licence,
                    }
                    for file in status.files
                ],
            }
            for status in statuses
        ],
    }
