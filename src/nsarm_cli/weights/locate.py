"""From what `--model` takes to a model folder on this machine."""

from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.catalog import find_model
from nsarm_cli.weights.snapshot import fetch_model, is_repository
from nsarm_cli.weights.store import Store


def locate(model: str, *, text: bool = False) -> Path:
    """Find a model's folder, or fetch it from the Hub.

    Args:
        model: a folder, a name of `weights.toml`, or `user/repo[@revision]` of the Hub. A folder
            goes first where a text could be both.
        text: whether the text encoder is needed too.

    Raises:
        WeightsError: there is no such model, or it is not ready to run.
    """
    path = Path(model)
    if path.is_dir():
        return path
    if not path.exists() and is_repository(model):
        return fetch_model(model, text=text)
    if path.exists() or len(path.parts) > 1:
        raise WeightsError(
            f"{model}: is not a folder; give a known model's name, a folder that nsarm wrote, "
            "or user/repo of the Hub"
        )
    entry = find_model(model)
    folder = Store().runnable(entry)
    if folder is None:
        raise WeightsError(
            f"model {model} is not ready to run on this machine; {how_to_install(model)}"
        )
    return folder


def how_to_install(model: str) -> str:
    """What to do to have a published model here, as a clause."""
    return f"get it with: nsarm weights download {model} && nsarm weights convert {model}"
