"""Taking in files that the user fetched by hand; they are only read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import Digests, differing, read_through
from nsarm_cli.weights.download import check_space
from nsarm_cli.weights.entries import DriveSource, FileEntry, FolderSource, HubSource, ModelEntry
from nsarm_cli.weights.intake import Intake, MismatchError, opened
from nsarm_cli.weights.record import UNCHECKED, VERIFIED
from nsarm_cli.weights.remote import LocalRemote, SourceError, Transfer, writing
from nsarm_cli.weights.store import IMPORTING, Store
from nsarm_cli.weights.verify import check_file
from nsarm_cli.weights.watch import Watcher


@dataclass(frozen=True)
class _Given:
    """A file of the user's, and what it is to the model."""

    path: Path
    file: FileEntry
    target: Path


def import_files(store: Store, model: ModelEntry, paths: Sequence[Path], watcher: Watcher) -> None:
    """Link or copy files into the store and check them.

    A file is recognised by its name, as its authors give it, or else by its digest. Of a folder,
    the files that belong to the model are taken.

    Args:
        store: where they go.
        model: that they belong to.
        paths: files, parts, or folders of them; at least one.
        watcher: told of the progress.

    Raises:
        WeightsError: a file is not one of the model's, is damaged, or cannot be read; or parts
            are still missing. What was right is kept.
    """
    if model.ships:
        raise WeightsError(f"model {model.name} comes with nsarm; there is nothing to import")
    given = [_recognise(store, model, path) for path in paths if not path.is_dir()]
    for folder in (path for path in paths if path.is_dir()):
        given += _take_folder(store, model, folder)
    _refuse_twins(given)
    with opened(store, model) as intake:
        check_space(
            intake.folder,
            [(_local(g).local_size(intake.folder), _importing(g.target)) for g in given],
        )
        for one in given:
            _take(intake, one, watcher)
        joined = {one.file.path: one.file for one in given if one.target.name != one.file.path.name}
        for file in joined.values():
            check_file(intake, file, watcher)


def _recognise(store: Store, model: ModelEntry, path: Path) -> _Given:
    """Find out which file of the model this is."""
    if not path.is_file():
        raise WeightsError(f"{path}: is no file; give the files that you fetched")
    matches = list(_by_name(model, path))
    if len(matches) != 1:
        found = list(_by_digest(matches or list(model.files), path))
        if len(found) != 1:
            why = "could be several" if matches else "is none"
            known = ", ".join(_expected(file) for file in matches or model.files)
            raise WeightsError(
                f"{path}: {why} of the files of {model.name}, by its name and its content; "
                f"known are {known}; rename it to the one it is"
            )
        matches = found
    return _given(store, model, matches[0], path)


def _take_folder(store: Store, model: ModelEntry, folder: Path) -> list[_Given]:
    found = []
    try:
        for path in sorted(folder.rglob("*")):
            matches = list(_by_name(model, path))
            if len(matches) == 1 and path.is_file():
                found.append(_given(store, model, matches[0], path))
    except OSError as error:
        raise WeightsError(f"{folder}: cannot be read: {error.strerror}") from error
    if not found:
        known = ", ".join(_expected(file) for file in model.files)
        raise WeightsError(f"{folder}: holds no file of {model.name}; known are {known}")
    return found


def _given(store: Store, model: ModelEntry, file: FileEntry, path: Path) -> _Given:
    target = store.target(model, file)
    return _Given(path, file, target.with_name(path.name) if file.is_part(path.name) else target)


def _by_name(model: ModelEntry, path: Path) -> Iterator[FileEntry]:
    for file in model.files:
        names = {file.path.name}
        for source in file.sources:
            match source:
                case HubSource() if file.parts is None:
                    names.add(source.path.rpartition("/")[2])
                case DriveSource() | FolderSource() if file.parts is None:
                    names.add(source.name)
                case _:
                    pass
        if path.name in names or file.is_part(path.name):
            yield file


def _by_digest(files: Sequence[FileEntry], path: Path) -> Iterator[FileEntry]:
    size = path.stat().st_size
    fitting = [file for file in files if file.digests and file.size in (None, size)]
    taker = Digests({name for file in fitting for name in file.digests})
    if fitting:
        read_through(path, taker)
    yield from (file for file in fitting if differing(file.digests, taker.values()) is None)


def _expected(file: FileEntry) -> str:
    return file.parts or file.path.name


def _refuse_twins(given: Sequence[_Given]) -> None:
    """Stop where two of the user's files would go to one place."""
    places: dict[Path, Path] = {}
    for one in given:
        first = places.setdefault(one.target, one.path)
        if first != one.path:
            raise WeightsError(
                f"{one.path} and {first}: both are {one.target.name}; give the right one only"
            )


def _local(given: _Given) -> LocalRemote:
    path = given.path
    return LocalRemote(path.name, str(path.absolute()), path.stat().st_size, path=path)


def _importing(target: Path) -> Path:
    return target.with_name(target.name + IMPORTING)


def _take(intake: Intake, given: _Given, watcher: Watcher) -> None:
    """Bring one file in; one that is in its place already is only read."""
    name = given.target.relative_to(intake.folder).as_posix()
    wanted = given.file.digests if given.target.name == given.file.path.name else {}
    remote = _local(given)
    partial = _importing(given.target)
    watcher.begin(name, remote.size)
    outcome = "failed"
    try:
        with writing(partial):
            partial.parent.mkdir(parents=True, exist_ok=True)
        transfer = Transfer(lambda count: watcher.advance(name, count))
        found = remote.receive(partial, {"sha256", *wanted}, transfer, resume=False)
        wrong = differing(wanted, found)
        if wrong is not None:
            raise MismatchError(
                f"{given.path}: has the {wrong} {found[wrong]} instead of {wanted[wrong]}, so it "
                f"is not {given.file.path.name} or was damaged on the way; fetch it again"
            )
        intake.accept(partial, given.target, wanted, found, remote.origin)
        outcome = VERIFIED if wanted else UNCHECKED
    except SourceError as error:
        raise WeightsError(str(error)) from error
    finally:
        with writing(partial):
            partial.unlink(missing_ok=True)
        watcher.end(name, outcome)
