"""The models known by name, read from `weights.toml`."""

import os
import tomllib
from pathlib import Path

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.weights.entries import PACKAGE, ModelEntry
from nsarm_cli.weights.schema import read_models

CATALOG_VARIABLE = "NSARM_CATALOG"
"""Environment variable with the path of a catalogue to use instead, for mirrors of one's own."""


def catalog_path() -> Path:
    """Find `weights.toml`: where the environment says, in the package, or in the checkout.

    Raises:
        ConfigError: it is in none of these places.
    """
    chosen = os.environ.get(CATALOG_VARIABLE)
    if chosen:
        return Path(chosen)
    # An editable install leaves the file where the checkout has it.
    places = (PACKAGE / "weights.toml", PACKAGE.parents[1] / "weights.toml")
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"weights.toml is missing: it is neither {places[0]} nor {places[1]}; reinstall nsarm"
    )


def load_catalog(path: Path | None = None) -> dict[str, ModelEntry]:
    """Read the catalogue.

    Args:
        path: the file; by default what `catalog_path` finds.

    Returns:
        Entries by name, in the order of the file.

    Raises:
        ConfigError: the file cannot be read or breaks the format.
    """
    path = path or catalog_path()
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; reinstall nsarm, "
            f"or mend {CATALOG_VARIABLE} if it is set"
        ) from error
    except (ValueError, RecursionError) as error:  # TOML syntax, or bytes that are not UTF-8
        raise ConfigError(f"{path}: is not valid TOML: {error}; mend it there") from error
    return read_models(document, str(path))


def find_model(name: str) -> ModelEntry:
    """Look a model up by name.

    Raises:
        WeightsError: no model has this name.
        ConfigError: the catalogue is damaged.
    """
    catalog = load_catalog()
    if name not in catalog:
        raise WeightsError(f"model {name!r} is unknown: the known ones are {', '.join(catalog)}")
    return catalog[name]
