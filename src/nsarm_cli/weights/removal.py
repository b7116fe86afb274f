"""Deleting what the store itself has made, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.entries import ModelEntry
from nsarm_cli.weights.intake import LOCK_NAME, opened
from nsarm_cli.weights.record import RECORD_NAME, read_record
from nsarm_cli.weights.store import Store

_CONVERTED = (".safetensors", ".json", ".model")
"""Endings of the files that a conversion writes."""


@dataclass(frozen=True)
class RemovalPlan:
    """What a removal would do.

    Attributes:
        files: to delete.
        foreign: in the model's folders, but not made by the store; they stay.
    """

    files: tuple[Path, ...]
    foreign: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of the files to delete."""
        return sum(path.stat().st_size for path in self.files)


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
    folder = store.downloads(model.name)
    known = {folder / name for name in read_record(folder).files}
    for file in model.files:
        known |= {*store.unfinished(model, file), *store.rejected(model, file)}
    own = {folder / RECORD_NAME, folder / LOCK_NAME}
    files: list[Path] = []
    foreign: list[Path] = []
    for path in _files_of(folder):
        if path not in own:
            (files if path in known else foreign).append(path)
    if converted:
        for path in _files_of(store.converted(model.name)):
            (files if path.suffix in _CONVERTED else foreign).append(path)
    return RemovalPlan(tuple(files), tuple(foreign))


def remove(store: Store, model: ModelEntry, planned: RemovalPlan) -> None:
    """Delete the files of a plan, and folders that are empty then.

    Raises:
        WeightsError: another process is at work on the model, or a file cannot be deleted.
    """
    folders = (store.downloads(model.name), store.converted(model.name))
    with opened(store, model):
        for path in planned.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise WeightsError(
                    f"{path}: cannot be deleted: {error.strerror}; delete it yourself"
                ) from error
        if not planned.foreign:
            (folders[0] / RECORD_NAME).unlink(missing_ok=True)
    if not planned.foreign:
        (folders[0] / LOCK_NAME).unlink(missing_ok=True)
    for folder in folders:
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
