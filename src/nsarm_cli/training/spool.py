"""Shards from elsewhere, brought here one at a time and removed when they have been used.

They lie in a folder of their own under the system's temporary one (`TMPDIR`), which goes with
the run. All workers of a process share it.
"""

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path

from filelock import FileLock

from nsarm_cli import __version__
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.patterns import shown

_TRIES = 3
_PAUSE_S = 2.0
_TIMEOUT_S = 60
_KEPT = 3
"""Shards that stay: the one in use, the next, and the last for a worker that lags behind."""
_OF_THE_DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT),
}
"""What goes wrong with a file and not with the network."""
_LEAST_ROOM = 1 << 20
"""Bytes; a disk with fewer counts as full."""

_log = logging.getLogger(__name__)


class Spool:
    """Brings shards here, each once for all workers.

    Raises:
        ConfigError: there is no room for a temporary folder.
    """

    def __init__(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="nsarm-shards-"))
        except OSError as error:
            raise _no_room(Path(tempfile.gettempdir()), error) from error
        self._finalizer = weakref.finalize(self, _remove, self.folder, os.getpid())

    def __getstate__(self) -> Path:
        return self.folder  # a worker that is started afresh shares the folder, not its removal

    def __setstate__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, source: str) -> Path:
        """The file of a shard, fetched if it is not here.

        Args:
            source: a URL, or "pipe:" and a command that writes the shard to its output.

        Raises:
            ImageError: it cannot be had.
            ConfigError: there is no room for it.
        """
        path = self.folder / f"{hashlib.sha256(source.encode()).hexdigest()[:32]}.tar"
        try:
            with FileLock(path.with_suffix(".lock")):
                while not self.holds(path):
                    _fetch(source, path)
                    self._forget_old(path)
        except OSError as error:
            raise _no_room(self.folder, error) from error
        return path

    def holds(self, path: Path) -> bool:
        """Whether a shard is still here; if so, it becomes the one that was used last.

        Other workers remove what was not used for long.
        """
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _forget_old(self, newest: Path) -> None:
        shards = [p for p in self.folder.glob("*.tar") if p != newest]
        with contextlib.suppress(OSError):  # another worker may remove the same
            shards.sort(key=lambda p: p.stat().st_mtime_ns, reverse=True)
            for path in shards[_KEPT - 1 :]:
                path.unlink()


def _fetch(source: str, path: Path) -> None:
    """Write a shard under a temporary name, then rename; what fails is tried again.

    Raises:
        ImageError: it cannot be had.
        OSError: it cannot be written.
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        try:
            if source.startswith("pipe:"):
                _run(source.removeprefix("pipe:"), part)
            else:
                _download(source, part)
            part.replace(path)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
                raise
            # A command tells nobody why it failed; but where it had no room to write, that is why.
            if shutil.disk_usage(path.parent).free < _LEAST_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            reason: Exception = error
            gone = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if gone:
                break
        else:
            return
        finally:
            part.unlink(missing_ok=True)
    raise ImageError(
        f"{shown(source)}: cannot be fetched ({reason}); check its name and the network"
    )


def _download(url: str, path: Path) -> None:
    request = urllib.request.Request(  # noqa: S310  (only http and https come here)
        url, headers={"User-Agent": f"nsarm/{__version__}"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
        shutil.copyfileobj(answer, file, 1 << 20)
        size = answer.headers.get("Content-Length")
    if size is not None and path.stat().st_size != int(size):
        raise OSError(f"{path.stat().st_size} of {size} bytes came")


def _run(command: str, path: Path) -> None:
    with path.open("wb") as file:
        # A command of the user's own, on the user's own command line; pipes are its point.
        done = subprocess.run(command, shell=True, stdout=file, check=False)  # noqa: S602
    if done.returncode:
        raise OSError(f"the command ended with {done.returncode}")


def _no_room(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{folder}: cannot hold shards ({error.strerror or error}); set TMPDIR to a folder with "
        f"room for {_KEPT + 1} of them"
    )


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # workers inherit the object but not the folder
        shutil.rmtree(folder, ignore_errors=True)
