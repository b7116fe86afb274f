"""Files of public Google Drive folders, through gdown where it is installed.

Google allows a file so many downloads a day; then it refuses everyone who is not logged in.
The files can be fetched by hand and imported, so every error here says how.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType

from nsarm_cli.weights.digests import Digests, read_through
from nsarm_cli.weights.entries import DriveSource
from nsarm_cli.weights.remote import CancelledError, Remote, SourceError, Transfer, writing
from nsarm_cli.weights.store import GATHERING

_TIMEOUT_S = 30
_RETRIES = 5


@dataclass(frozen=True)
class DriveRemote(Remote):
    """A file that was found in a Drive folder."""

    id: str = ""
    folder: str = ""

    def receive(
        self, partial: Path, algorithms: Iterable[str], transfer: Transfer, *, resume: bool
    ) -> dict[str, str]:
        """See `Remote.receive`; gdown resumes, and feeds the digests."""
        gathered = partial.with_name(self.name + GATHERING)
        taker = Digests(algorithms)
        if resume and gathered.is_file():  # whole, but the process ended before it was taken over
            read_through(gathered, taker)
        else:
            self._download(gathered, taker, transfer, resume=resume)
        with writing(partial):
            gathered.replace(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        return taker.values()

    def _download(
        self, gathered: Path, taker: Digests, transfer: Transfer, *, resume: bool
    ) -> None:
        done = 0

        def progress(so_far: int, _total: int | None) -> None:
            nonlocal done
            transfer.on_bytes(so_far - done)
            done = so_far

        gdown = _load(self.folder)
        with _explaining(self.folder, gdown):
            gdown.download(
                id=self.id,
                output=str(gathered),
                quiet=True,
                resume=resume,
                progress=progress,
                hasher=taker,
                timeout=_TIMEOUT_S,
                retries=_RETRIES,
                cancel=transfer.cancel,
            )


def find_on_drive(source: DriveSource) -> list[Remote]:
    """Find the files of a folder that have the name, or match the pattern, of a source.

    Raises:
        SourceError: there are none, the folder cannot be listed, or gdown is not installed.
    """
    gdown = _load(source.folder)
    with _explaining(source.folder, gdown):
        listing = gdown.download_folder(
            id=source.folder, skip_download=True, quiet=True, timeout=_TIMEOUT_S
        )
    names = {PurePosixPath(file.path).name: file.id for file in listing}
    found = {name: id_ for name, id_ in names.items() if fnmatchcase(name, source.name)}
    if not found:
        raise SourceError(f"{source}: has no file named {source.name}; {_by_hand(source.folder)}")
    return [
        DriveRemote(name, str(source), id=id_, folder=source.folder) for name, id_ in found.items()
    ]


def _by_hand(folder: str) -> str:
    return (
        f"fetch the files in a browser from https://drive.google.com/drive/folders/{folder} "
        "(log in, and copy them to your own Drive first if Google says that the quota is "
        "exceeded), then run: nsarm weights import MODEL FILE..."
    )


def _load(folder: str) -> ModuleType:
    try:
        return import_module("gdown")  # an extra that many do without
    except ImportError as error:
        raise SourceError(
            f"Google Drive folder {folder}: needs gdown, which is not installed; "
            f"install it with: pip install 'nsarm[drive]'; or {_by_hand(folder)}"
        ) from error


@contextmanager
def _explaining(folder: str, gdown: ModuleType) -> Iterator[None]:
    """Turn what gdown or its transport raises into a reason and the way by hand."""
    try:
        yield
    except gdown.exceptions.DownloadCancelled as error:
        raise CancelledError from error
    except (gdown.exceptions.DownloadError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"Google Drive folder {folder}: {reason[:300]}; {_by_hand(folder)}"
        ) from error
