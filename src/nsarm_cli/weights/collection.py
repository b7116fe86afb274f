"""Bringing a collection of small files to this machine: all of them, or none.

The files gather in a hidden folder beside the one that they are for, which gets its name when all
are there and have their digests. An interrupted run goes on there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import Digests, read_through
from nsarm_cli.weights.http import HttpRemote
from nsarm_cli.weights.remote import Transfer, writing
from nsarm_cli.weights.store import PARTIAL
from nsarm_cli.weights.watch import Watcher
from nsarm_cli.weights.workers import Workers


@dataclass(frozen=True)
class PublishedFile:
    """One file of a collection.

    Attributes:
        path: inside the collection's folder.
        url: its address.
        sha256: of its content.
    """

    path: PurePosixPath
    url: str
    sha256: str


def fetch_collection(
    folder: Path,
    files: Sequence[PublishedFile],
    watcher: Watcher,
    *,
    size: int | None = None,
    jobs: int = 4,
) -> None:
    """Fetch a collection and check all of it; nothing is done where its folder exists.

    Args:
        folder: of the collection; its name is what the watcher is told.
        files: at least one.
        watcher: told of the collection as of one file.
        size: bytes of all files, where that is known.
        jobs: files fetched at once, at least 1.

    Raises:
        WeightsError: a file could not be had or is another one, the folder cannot be written, or
            another process is fetching it. The first failure ends the work; what came is kept.
    """
    gathering = folder.with_name(f".{folder.name}.part")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise WeightsError(
                f"{folder}: another nsarm is fetching it; wait until it has ended"
            ) from error
    try:
        if folder.exists():  # another process was quicker
            return
        watcher.begin(folder.name, size)
        outcome = "failed"
        try:
            with Workers(jobs) as workers:
                transfer = Transfer(lambda n: watcher.advance(folder.name, n), workers.cancel)
                workers.run_or_fail(lambda file: _fetch(gathering, file, transfer), files)
            with writing(folder):
                gathering.rename(folder)
            outcome = "verified"
        finally:
            watcher.end(folder.name, outcome)
    finally:
        lock.release()


def _fetch(folder: Path, file: PublishedFile, transfer: Transfer) -> None:
    """Fetch one file, unless an earlier run did."""
    target = folder / file.path
    if target.is_file():
        taker = Digests()
        with writing(target):
            read_through(target, taker)
        if taker.values()["sha256"] == file.sha256:
            transfer.on_bytes(target.stat().st_size)
            return
    partial = target.with_name(target.name + PARTIAL)
    with writing(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
    begun = partial.is_file()
    remote = HttpRemote(file.path.name, file.url, url=file.url)
    found = remote.receive(partial, ("sha256",), transfer, resume=True)
    if begun and found["sha256"] != file.sha256:
        # The beginning may have been of another time: once more, from nothing.
        transfer.on_bytes(-partial.stat().st_size)
        found = remote.receive(partial, ("sha256",), transfer, resume=False)
    if found["sha256"] != file.sha256:
        with writing(partial):
            partial.unlink()
        raise WeightsError(
            f"{file.url}: has the sha256 {found['sha256']} instead of {file.sha256}: it was "
            "damaged on the way, or is another file; run the same command again"
        )
    with writing(target):
        partial.replace(target)
