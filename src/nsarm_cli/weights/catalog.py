"""The models known by name, read from `weights.toml`.

The file says of each model which family runs it and which files it consists of, with
the size, digest and licence of each. Its format is public and is checked strictly, so a
slip in it is an error that names the place, never a model that loads wrongly.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from nsarm_cli.errors import ConfigError, WeightsError

_PACKAGE = Path(__file__).parents[1]
_T = TypeVar("_T")


@dataclass(frozen=True)
class FileEntry:
    """One file of a model.

    Attributes:
        role: "config" or "model".
        path: relative, inside the package.
        size: bytes.
        sha256: 64 lower-case hexadecimal digits.
        licence: SPDX identifier.
    """

    role: str
    path: PurePosixPath
    size: int
    sha256: str
    licence: str

    @property
    def location(self) -> Path:
        """Where the file lies on this machine."""
        return _PACKAGE / self.path


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        name: what `--model` takes.
        family: the package of `nsarm_cli.models` that runs it.
        files: at least one.
    """

    name: str
    family: str
    files: tuple[FileEntry, ...]


def catalog_path() -> Path:
    """Find `weights.toml`: beside the package in a wheel, at the root of a checkout.

    Raises:
        ConfigError: it is in neither place.
    """
    # An editable install leaves the file where the checkout has it.
    places = (_PACKAGE / "weights.toml", _PACKAGE.parents[1] / "weights.toml")
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"weights.toml is missing: it is neither {places[0]} nor {places[1]}; reinstall nsarm"
    )


def load_catalog(path: Path | None = None) -> dict[str, ModelEntry]:
    """Read the catalogue.

    Args:
        path: the file; by default the one that came with the package.

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
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; reinstall nsarm") from error
    except ValueError as error:  # TOML syntax, or bytes that are not UTF-8
        raise ConfigError(f"{path}: is not valid TOML: {error}; mend it there") from error
    top = _Table(document, f"{path}: ")
    models = top.take("models", dict)
    top.end()
    return {name: _model(name, table, f"{path}: models.{name}") for name, table in models.items()}


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


class _Table:
    """A TOML table whose keys are taken one by one; a key left over is an error."""

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{where.rstrip('.')} must be a table; see the head of weights.toml")
        self._rest = dict(table)
        self._where = where

    def take(self, key: str, kind: type[_T]) -> _T:
        value = self._rest.pop(key, None)
        # TOML booleans are Python ints.
        if not isinstance(value, kind) or isinstance(value, bool):
            found = "is missing" if value is None else f"is {value!r}"
            raise ConfigError(
                f"{self._where}{key} {found}: it must be of type {kind.__name__}; "
                "see the head of weights.toml"
            )
        return value

    def end(self) -> None:
        if self._rest:
            raise ConfigError(
                f"{self._where}{next(iter(self._rest))} is unknown; see the head of weights.toml"
            )


def _model(name: str, table: object, where: str) -> ModelEntry:
    fields = _Table(table, f"{where}.")
    family = fields.take("family", str)
    files = fields.take("files", list)
    fields.end()
    if not files:
        raise ConfigError(f"{where}.files is empty: a model has at least one file; add it")
    return ModelEntry(
        name, family, tuple(_file(file, f"{where}.files[{i}]") for i, file in enumerate(files))
    )


def _file(table: object, where: str) -> FileEntry:
    fields = _Table(table, f"{where}.")
    entry = FileEntry(
        role=fields.take("role", str),
        path=PurePosixPath(fields.take("path", str)),
        size=fields.take("size", int),
        sha256=fields.take("sha256", str),
        licence=fields.take("licence", str),
    )
    fields.end()
    if entry.path.is_absolute() or ".." in entry.path.parts:
        raise ConfigError(f"{where}.path is {str(entry.path)!r}: it must stay in the package")
    if not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ConfigError(f"{where}.sha256 is {entry.sha256!r}: it must be 64 hexadecimal digits")
    return entry
