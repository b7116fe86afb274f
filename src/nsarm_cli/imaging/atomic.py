"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nsarm_cli.errors import ImageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\.nsarm-[0-9a-f]{16}\.tmp")
_YOUNG_S = 60


@contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes its name only when the block ends without an error.

    The bytes go to a hidden file beside `path` and are on the disk before it is renamed. After
    an error or an interruption the hidden file is gone and `path` is as it was.

    Args:
        path: its folder exists.
        overwrite: a file of this name may be replaced; otherwise it is left alone even if it
            appeared during the work.

    Raises:
        ImageError: it exists, or the disk refuses.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("x+b") as file:
            with contextlib.suppress(OSError):  # a file system without locks: it is never swept
                _hold(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _publish(temporary, path)
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone already, or never made
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """Name a hidden neighbour that nothing else uses and whose name is never too long."""
    return path.with_name(f".nsarm-{secrets.token_hex(8)}.tmp")


def sweep(folder: Path) -> None:
    """Remove the hidden files of `whole_file` that killed processes have left in a folder.

    Those of living processes are locked and stay, and so does what is younger than a minute: a
    file is not locked in the instant in which it is made. What cannot be removed stays too.

    Args:
        folder: it need not exist.
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(".nsarm-*.tmp"):
            if _LEFTOVER.fullmatch(path.name) is None:
                continue
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _YOUNG_S:
                    with path.open("rb") as file:
                        _hold(file)
                    path.unlink()


def _hold(file: BinaryIO) -> None:
    """Lock a file until it is closed or the process ends; OSError if another holds it.

    Where there are no such locks, as on Windows, an open file cannot be removed anyway.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def exists(path: Path) -> ImageError:
    """Say that a file is in the way."""
    return ImageError(f"{path}: exists already; pass --overwrite or choose another name with -o")


def unwritable(path: Path, error: OSError) -> ImageError:
    """Say why the disk refuses a file."""
    if error.errno == errno.ENOSPC:
        return ImageError(f"{path}: the disk is full; free space or choose another folder with -o")
    reason = error.strerror or error
    return ImageError(f"{path}: cannot be written ({reason}); choose another folder with -o")


def _publish(temporary: Path, path: Path) -> None:
    """Give `temporary` its final name unless that is taken (FileExistsError)."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # No hard links on this file system: hold the name with an empty file, then replace it.
        path.touch(exist_ok=False)
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink()
            raise
