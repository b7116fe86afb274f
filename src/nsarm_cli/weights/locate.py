"""From what `--model` takes to a model folder on this machine."""

from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.catalog import find_model
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
    if _is_on_the_hub(model):
        from nsarm_cli.weights.snapshot import fetch_model  # noqa: PLC0415  (as below)

        return fetch_model(model, text=text)
    return _here(model)


def locate_config(model: str) -> Path:
    """Find a folder with a model's `config.json`; of the Hub nothing else is fetched.

    Raises:
        WeightsError: there is no such model, or it is not ready to run.
    """
    if _is_on_the_hub(model):
        from nsarm_cli.weights.snapshot import fetch_config  # noqa: PLC0415  (as below)

        return fetch_config(model)
    return _here(model)


def _is_on_the_hub(model: str) -> bool:
    if "/" not in model or Path(model).exists():
        return False
    # Loading the Hub's library takes 0.2 s, which other models need not wait for.
    from nsarm_cli.weights.snapshot import is_repository  # noqa: PLC0415

    return is_repository(model)


def _here(model: str) -> Path:
    path = Path(model)
    if path.is_dir():
        return path
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
