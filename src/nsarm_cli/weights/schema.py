"""The format of `weights.toml`, checked strictly.

A slip in the file is an error that names the place, never a model that loads wrongly.
What the keys mean is written at the head of `weights.toml`.
"""

import re
from pathlib import Path, PurePosixPath
from typing import TypeVar

from nsarm_cli.errors import ConfigError
from nsarm_cli.weights.entries import (
    DriveSource,
    FileEntry,
    FolderSource,
    HubSource,
    ModelEntry,
    Source,
    UrlSource,
)

ROLES = ("config", "model", "vae", "text_encoder", "tokenizer", "transformer")
"""What a file can be: the first two make a model folder, the rest are the authors' files."""

_SEE = "see the head of weights.toml"
_KINDS = ("hub", "drive", "url", "folder")
_T = TypeVar("_T")


def read_models(document: dict[str, object], where: str) -> dict[str, ModelEntry]:
    """Check a parsed catalogue and turn it into entries.

    Args:
        document: of the TOML file.
        where: what the messages begin with, such as the path of the file.

    Returns:
        Entries by name, in the order of the file.

    Raises:
        ConfigError: it breaks the format.
    """
    top = _Table(document, f"{where}: ")
    models = top.take("models", dict)
    top.end()
    return {name: _model(name, table, f"{where}: models.{name}") for name, table in models.items()}


class _Table:
    """A TOML table whose keys are taken one by one; a key left over is an error."""

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{where.rstrip('.')} must be a table; {_SEE}")
        self._rest = dict(table)
        self._where = where

    def take(self, key: str, kind: type[_T]) -> _T:
        value = self.find(key, kind)
        if value is None:
            raise ConfigError(
                f"{self._where}{key} is missing: it must be of type {kind.__name__}; {_SEE}"
            )
        return value

    def find(self, key: str, kind: type[_T]) -> _T | None:
        value = self._rest.pop(key, None)
        if value is None:
            return None
        # TOML booleans are Python ints.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(
                f"{self._where}{key} is {value!r}: it must be of type {kind.__name__}; {_SEE}"
            )
        return value

    def find_match(self, key: str, pattern: str, rule: str) -> str | None:
        value = self.find(key, str)
        if value is not None and not re.fullmatch(pattern, value):
            raise ConfigError(f"{self._where}{key} is {value!r}: it must be {rule}")
        return value

    def has(self, key: str) -> bool:
        return key in self._rest

    def end(self) -> None:
        if self._rest:
            raise ConfigError(f"{self._where}{next(iter(self._rest))} is unknown; {_SEE}")


def _model(name: str, table: object, where: str) -> ModelEntry:
    # The name becomes the name of a folder.
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ConfigError(f"{where}: a model's name is lower-case letters, digits and '._-' only")
    fields = _Table(table, f"{where}.")
    family = fields.take("family", str)
    files = fields.take("files", list)
    fields.end()
    if not files:
        raise ConfigError(f"{where}.files is empty: a model has at least one file; add it")
    entries = tuple(_file(file, f"{where}.files[{i}]") for i, file in enumerate(files))
    paths = [entry.path for entry in entries]
    twice = [str(path) for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"{where}.files has {twice[0]!r} twice: every path is used once")
    if len({entry.ships for entry in entries}) > 1:
        raise ConfigError(
            f"{where}.files: some have sources and some ship with the package; "
            "a model is all one or all the other"
        )
    return ModelEntry(name, family, entries)


def _file(table: object, where: str) -> FileEntry:
    fields = _Table(table, f"{where}.")
    role = fields.take("role", str)
    path = _path(fields.take("path", str), f"{where}.path")
    parts = fields.find_match(
        "parts", r"[^/\\*?\[\].][^/\\*?\[\]]*\*", "a file name that ends in one '*'"
    )
    entry = FileEntry(
        role=role,
        path=path,
        sources=tuple(
            _source(source, path.name, parts, f"{where}.sources[{i}]")
            for i, source in enumerate(fields.find("sources", list) or [])
        ),
        parts=parts,
        size=fields.find("size", int),
        sha256=fields.find_match("sha256", "[0-9a-f]{64}", "64 hexadecimal digits"),
        md5=fields.find_match("md5", "[0-9a-f]{32}", "32 hexadecimal digits"),
        licence=fields.find("licence", str),
    )
    fields.end()
    _check(entry, where)
    return entry


def _check(entry: FileEntry, where: str) -> None:
    if entry.role not in ROLES:
        raise ConfigError(f"{where}.role is {entry.role!r}: it must be one of {', '.join(ROLES)}")
    if entry.size is not None and entry.size <= 0:
        raise ConfigError(f"{where}.size is {entry.size}: it must be above 0")
    if entry.ships and (entry.size is None or entry.sha256 is None):
        raise ConfigError(f"{where}: a file that ships with the package needs size and sha256")
    if entry.parts is not None and not entry.digests:
        raise ConfigError(f"{where}: parts need sha256 or md5 of the joined file")
    for source in entry.sources:
        if isinstance(source, UrlSource) and entry.parts is not None:
            raise ConfigError(f"{where}: parts cannot be listed at a url; name another source")
        if isinstance(source, UrlSource) and source.url.startswith("http:") and not entry.digests:
            raise ConfigError(f"{where}: {source.url} is not https, so sha256 or md5 is needed")


def _path(text: str, where: str) -> PurePosixPath:
    path = PurePosixPath(text)
    hidden = any(part.startswith(".") for part in path.parts)  # also ".."
    if path.is_absolute() or hidden or not path.parts or "\\" in text or ":" in text:
        raise ConfigError(f"{where} is {text!r}: it must stay in the package or the model's folder")
    if path.suffix in (".partial", ".importing", ".drive", ".rejected"):
        raise ConfigError(f"{where} is {text!r}: names in {path.suffix} are kept for downloads")
    return path


def _source(table: object, name: str, parts: str | None, where: str) -> Source:
    fields = _Table(table, f"{where}.")
    kinds = [kind for kind in _KINDS if fields.has(kind)]
    if len(kinds) != 1:
        raise ConfigError(f"{where} must name one of {', '.join(_KINDS)}, and has {len(kinds)}")
    source: Source
    if kinds == ["hub"]:
        source = HubSource(
            repo=fields.find_match("hub", r"[\w.-]+/[\w.-]+", "'owner/name'") or "",
            revision=fields.find_match("revision", "[0-9a-f]{40}", "a commit of 40 digits"),
            path=fields.find("path", str) or ("" if parts else name),
        )
    elif kinds == ["drive"]:
        folder = fields.find_match("drive", r"[\w-]+", "the id of a folder") or ""
        source = DriveSource(folder, parts or fields.find("path", str) or name)
    elif kinds == ["url"]:
        source = UrlSource(fields.find_match("url", r"https?://\S+", "an http address") or "")
    else:
        place = Path(fields.take("folder", str)).expanduser()
        source = FolderSource(place, parts or fields.find("path", str) or name)
    fields.end()
    return source
