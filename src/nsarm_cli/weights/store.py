"""Where weights lie on this machine, and what state they are in.

```
$NSARM_HOME/
  downloads/NAME/   the authors' files, with a record of what was checked
  models/NAME/      the same model converted, ready to run
```
"""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from platformdirs import user_cache_path

from nsarm_cli.weights.digests import Digests, differing, read_through
from nsarm_cli.weights.entries import FileEntry, ModelEntry
from nsarm_cli.weights.record import DAMAGED, VERIFIED, Record, Stamp, read_record
from nsarm_cli.weights.splits import natural_key

HOME_VARIABLE = "NSARM_HOME"
"""Environment variable with the folder of everything that nsarm downloads and converts."""

PARTIAL = ".partial"
"""Ending of a file that is being downloaded."""
GATHERING = ".drive"
"""Ending under which gdown gathers a file; it puts eight characters and ".part" behind it."""
IMPORTING = ".importing"
"""Ending of a file that is being taken in from elsewhere on this machine."""
REJECTED = ".rejected"
"""Ending of a file whose content is not what it should be; kept to be looked at."""

_UNFINISHED = rf"\{PARTIAL}|\{IMPORTING}|\{GATHERING}(?:.{{8}}\.part)?"
_ODD = rf"{_UNFINISHED}|\{REJECTED}"


class State(StrEnum):
    """What is known of a file or a model on this machine."""

    MISSING = "missing"
    PARTIAL = "partial"
    PRESENT = "present"  # whole, but not checked, or there is nothing to check it against
    VERIFIED = "verified"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class FileStatus:
    """What there is of one file.

    Attributes:
        entry: of the catalogue.
        state: see `State`.
        paths: the file, or its parts in order; whole ones only.
        held: bytes on disk, those of unfinished downloads included.
    """

    entry: FileEntry
    state: State
    paths: tuple[Path, ...]
    held: int


@dataclass(frozen=True)
class ModelStatus:
    """What there is of one model.

    Attributes:
        entry: of the catalogue.
        files: one for each file of the entry.
        runnable: the folder that `nsarm upscale` can load, or None where there is none yet.
    """

    entry: ModelEntry
    files: tuple[FileStatus, ...]
    runnable: Path | None

    @property
    def state(self) -> State:
        """The worst state of its files; PARTIAL where some are there and some are not."""
        states = {file.state for file in self.files}
        if State.DAMAGED in states:
            return State.DAMAGED
        if len(states) > 1 and states & {State.MISSING, State.PARTIAL}:
            return State.PARTIAL
        return State.PRESENT if State.PRESENT in states else states.pop()

    @property
    def held(self) -> int:
        """Bytes of the files on disk."""
        return sum(file.held for file in self.files)


class Store:
    """The folder that holds weights.

    Args:
        root: by default what `NSARM_HOME` says, else the platform's folder for caches.
    """

    def __init__(self, root: Path | None = None) -> None:
        chosen = os.environ.get(HOME_VARIABLE)
        default = Path(chosen).expanduser() if chosen else user_cache_path("nsarm", False)
        self.root = (root or default).absolute()

    def downloads(self, model: str) -> Path:
        """The folder of a model's files as their authors publish them."""
        return self.root / "downloads" / model

    def converted(self, model: str) -> Path:
        """The folder of a model as `nsarm weights convert` writes it."""
        return self.root / "models" / model

    def target(self, model: ModelEntry, file: FileEntry) -> Path:
        """Where a file lies, or will; for parts, where their join would."""
        return file.location if file.ships else self.downloads(model.name) / file.path

    def runnable(self, model: ModelEntry) -> Path | None:
        """The folder that `nsarm upscale` can load, or None."""
        if model.ships:
            return self.target(model, model.files[0]).parent
        folder = self.converted(model.name)
        return folder if (folder / "config.json").is_file() else None

    def paths(self, model: ModelEntry, file: FileEntry) -> tuple[Path, ...]:
        """What there is of a file: the whole one, else its parts in order, else nothing."""
        target = self.target(model, file)
        if target.is_file():
            return (target,)
        return tuple(sorted(_siblings(target, file, ""), key=lambda part: natural_key(part.name)))

    def unfinished(self, model: ModelEntry, file: FileEntry) -> tuple[Path, ...]:
        """What downloads and imports of a file have begun and not ended."""
        return tuple(_siblings(self.target(model, file), file, _UNFINISHED))

    def rejected(self, model: ModelEntry, file: FileEntry) -> tuple[Path, ...]:
        """What was not what it should be, and was set aside."""
        return tuple(_siblings(self.target(model, file), file, rf"\{REJECTED}"))

    def status(self, model: ModelEntry) -> ModelStatus:
        """Look at a model's files without reading them, other than the small ones that ship."""
        record = Record() if model.ships else read_record(self.downloads(model.name))
        files = tuple(self._file_status(model, file, record) for file in model.files)
        return ModelStatus(model, files, self.runnable(model))

    def _file_status(self, model: ModelEntry, file: FileEntry, record: Record) -> FileStatus:
        target = self.target(model, file)
        paths = self.paths(model, file)
        partials = self.unfinished(model, file)
        held = sum(path.stat().st_size for path in (*paths, *partials))
        if file.ships:
            return FileStatus(file, _shipped_state(file), paths, held)
        if not paths:
            return FileStatus(file, State.PARTIAL if partials else State.MISSING, paths, held)
        if paths == (target,):
            state = _whole_state(file, target, record.files.get(str(file.path)))
        else:
            state = _join_state(file, paths, record)
        if state is State.PRESENT and partials:
            state = State.PARTIAL
        return FileStatus(file, state, paths, held)


def _siblings(target: Path, file: FileEntry, ending: str) -> list[Path]:
    """Find the file and its parts on disk, with an ending to their names.

    Args:
        target: the place of the file.
        file: whose names are looked for.
        ending: a regular expression; "" for the files themselves.
    """
    if not target.parent.is_dir():
        return []
    found = []
    for path in target.parent.iterdir():
        match = re.fullmatch(f"(.+?)({ending})", path.name)
        if match is None or (not ending and re.fullmatch(f".+({_ODD})", path.name)):
            continue
        if (match[1] == target.name or file.is_part(match[1])) and path.is_file():
            found.append(path)
    return sorted(found)


def _shipped_state(file: FileEntry) -> State:
    if not file.location.is_file():
        return State.MISSING
    found = Digests()
    read_through(file.location, found)
    return State.DAMAGED if differing(file.digests, found.values()) else State.VERIFIED


def _whole_state(file: FileEntry, path: Path, stamp: Stamp | None) -> State:
    if file.size not in (None, path.stat().st_size):
        return State.DAMAGED
    if stamp is None or not stamp.fits(path):
        return State.PRESENT
    # The catalogue may have learnt a digest since the file was read.
    known = {name: digest for name, digest in file.digests.items() if name in stamp.digests}
    if stamp.verdict == DAMAGED or differing(known, stamp.digests):
        return State.DAMAGED
    return State.VERIFIED if stamp.verdict == VERIFIED or known else State.PRESENT


def _join_state(file: FileEntry, paths: tuple[Path, ...], record: Record) -> State:
    """State of parts: that of their join, if they still are what was joined."""
    contents = {}
    for path in paths:
        stamp = record.files.get(str(file.path.parent / path.name))
        if stamp is None or not stamp.fits(path):
            return State.PARTIAL
        if stamp.verdict == DAMAGED:
            return State.DAMAGED
        contents[path.name] = stamp.digests.get("sha256")
    join = record.joins.get(str(file.path))
    if join is None or list(join.parts.items()) != list(contents.items()):
        return State.PARTIAL
    if join.verdict == DAMAGED or differing(file.digests, join.digests):
        return State.DAMAGED
    return State.VERIFIED
