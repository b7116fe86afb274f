"""Deleting what the store itself has made, and nothing else.

A folder that is a link was put there by the user: the link goes, and what it leads to stays.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.entries import ModelEntry
from nsarm_cli.weights.folder import CONFIG_FILE
from nsarm_cli.weights.intake import LOCK_NAME, opened
from nsarm_cli.weights.record import RECORD_NAME, read_record
from nsarm_cli.weights.shards import INDEX_FILE, WEIGHTS_FILE
from nsarm_cli.weights.staging import RECORD_FILE
from nsarm_cli.weights.store import Store
from nsarm_cli.weights.text_encoder import FOLDER, TOKENIZER_FILES

_FIXED = (CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, RECORD_FILE, "prompt.safetensors")
_FIXED_OF_TEXT = (CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, *TOKENIZER_FILES)


@dataclass(frozen=True)
class RemovalPlan:
    """What a removal would do.

    Attributes:
        files: to delete; a folder that is a link is one of them, as a link.
        foreign: in the model's folders, but not made by the store; they stay.
        linked: folders that the links lead to; they stay.
    """

    files: tuple[Path, ...]
    foreign: tuple[Path, ...]
    linked: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of the files to delete; what links lead to is not among them."""
        return sum(path.lstat().st_size for path in self.files)


def plan(store: Store, model: ModelEntry, *, converted: bool) -> RemovalPlan:
    """Find what the store has made of a model.

    Args:
        store: that holds it.
        model: to remove.
        converted: whether the converted model goes as well as the published files.

    Raises:
        WeightsError: the model ships with the package.
    """
    if model.ships:
        raise WeightsError(f"model {model.name} comes with nsarm; it goes when nsarm is removed")
    fetched = store.downloads(model.name)
    known = {fetched / name for name in read_record(fetched).files}
    for file in model.files:
        known |= {*store.unfinished(model, file), *store.rejected(model, file)}
    places = {fetched: known}
    if converted:
        folder = store.converted(model.name)
        places[folder] = set(_written(folder))
    files: list[Path] = []
    foreign: list[Path] = []
    linked: list[Path] = []
    for folder, own in places.items():
        if folder.is_symlink():
            files.append(folder)
            linked.append(folder.resolve())
            continue
        for path in _files_of(folder):
            if path not in {folder / RECORD_NAME, folder / LOCK_NAME}:
                (files if path in own else foreign).append(path)
    return RemovalPlan(tuple(files), tuple(foreign), tuple(linked))


def remove(store: Store, model: ModelEntry, planned: RemovalPlan) -> None:
    """Delete the files of a plan, and folders that are empty then.

    Raises:
        WeightsError: another process is at work on the model, or a file cannot be deleted.
    """
    fetched = store.downloads(model.name)
    with opened(store, model):
        for path in planned.files:
            if path != fetched:
                _unlink(path)
        if fetched not in planned.files:
            _unlink(fetched / RECORD_NAME)
    _unlink(fetched / LOCK_NAME)
    if fetched in planned.files:
        _unlink(fetched)
    for folder in (fetched, store.converted(model.name)):
        inside = {p for path in planned.files for p in path.parents if p.is_relative_to(folder)}
        # A folder has a longer path than the one that it is in.
        for path in sorted({folder, *inside}, key=lambda path: len(path.parts), reverse=True):
            _remove_empty(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _stuck(path, error) from error


def _remove_empty(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    try:
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise _stuck(folder, error) from error


def _stuck(path: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{path}: cannot be deleted: {error.strerror}; delete it yourself")


def _written(folder: Path) -> Iterator[Path]:
    """What a conversion has written, whether it is there or not."""
    for inner, fixed in ((folder, _FIXED), (folder / FOLDER, _FIXED_OF_TEXT)):
        yield from (inner / name for name in fixed)
        shards = _read(inner / INDEX_FILE, "weight_map")
        yield from (inner / name for name in shards.values() if _is_inside(name))
    recorded = _read(folder / RECORD_FILE, "files")
    yield from (folder / name for name in recorded if _is_inside(name))


def _read(path: Path, key: str) -> dict[str, Any]:
    """A table of a JSON file; empty where there is none, so that less is taken for ours."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}


def _is_inside(name: object) -> bool:
    """Whether it names a file below a folder; a damaged file could name any on the disk."""
    if not isinstance(name, str):
        return False
    path = PureWindowsPath(name)  # which knows both kinds of separators, and drives
    return not path.anchor and ".." not in path.parts


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
