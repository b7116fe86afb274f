"""Write a folder so that it is either absent or whole, and go on with it after an interruption.

The folder grows under a temporary name beside its place. Each file gets its own name only when
it is complete and on the disk, so a second attempt keeps what the first one finished; the folder
gets its name last.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nsarm_cli.errors import WeightsError

RECORD_FILE = "conversion.json"
"""In the folder: what it was made from."""

_UNFINISHED = ".unfinished"


class Staging:
    """A folder in the making; see `staged`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, name: str, size: int | None = None) -> bool:
        """Whether a file is there already, complete."""
        path = self.folder / name
        return path.is_file() and size in (None, path.stat().st_size)

    def write(self, name: str, writer: Callable[[Path], None]) -> None:
        """Have a file written under a temporary name, and give it its own."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(path.name + _UNFINISHED)
        writer(temporary)
        temporary.chmod(0o644)  # safetensors writes for the owner only; a model is to be shared
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def write_text(self, name: str, text: str) -> None:
        """Write a small file."""

        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        self.write(name, write)


@contextmanager
def staged(target: Path, record: dict[str, Any]) -> Iterator[Staging]:
    """Make a folder: yield a place to write, and give it its name when the block ends well.

    When the block raises or the process dies, the unfinished folder stays, and the next call
    with the same record goes on with it; one with another record starts anew.

    Args:
        target: does not exist, or is an empty folder.
        record: what the folder is made from and how, as plain values.

    Raises:
        WeightsError: the target exists, another process writes it, or the disk refuses.
    """
    refuse_existing(target)
    unfinished = target.with_name(f".{target.name}{_UNFINISHED}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{unfinished}.lock", timeout=0):
            _begin(unfinished, record)
            yield Staging(unfinished)
            _publish(unfinished, target)
    except Timeout as error:
        raise WeightsError(
            f"{target}: another process is writing it; wait until it has finished"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"{target}: cannot be written ({error.strerror or error}); make room or choose another "
            "folder, and run the same command again: it keeps the files that are finished"
        ) from error
    Path(f"{unfinished}.lock").unlink(missing_ok=True)


def refuse_existing(target: Path) -> None:
    """Raise a WeightsError if something is where a folder is to be made."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WeightsError(f"{target}: exists already; choose another folder, or remove it first")


def free_bytes(target: Path) -> int:
    """Bytes that can still be written where a folder is to be made."""
    place = next(parent for parent in target.absolute().parents if parent.is_dir())
    return shutil.disk_usage(place).free


def held_bytes(target: Path) -> int:
    """Bytes that an earlier attempt to make a folder has left."""
    unfinished = target.with_name(f".{target.name}{_UNFINISHED}")
    return sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())


def _begin(unfinished: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=2) + "\n"
    path = unfinished / RECORD_FILE
    if unfinished.exists():
        before = path.read_text(encoding="utf-8") if path.is_file() else None
        if before is None and any(p.suffix != _UNFINISHED for p in unfinished.iterdir()):
            raise WeightsError(f"{unfinished}: is in the way and not nsarm's; remove it first")
        if before != text:
            shutil.rmtree(unfinished)
        else:
            for leftover in unfinished.rglob(f"*{_UNFINISHED}"):
                leftover.unlink()
    unfinished.mkdir(exist_ok=True)
    if not path.exists():
        Staging(unfinished).write_text(RECORD_FILE, text)


def _publish(unfinished: Path, target: Path) -> None:
    for folder in (unfinished, *(path for path in unfinished.iterdir() if path.is_dir())):
        _flush(folder)
    if target.is_dir():  # empty, as `refuse_existing` saw
        target.rmdir()
    unfinished.replace(target)
    _flush(target.parent)


def _flush(folder: Path) -> None:
    """Put a folder's list of names on the disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
