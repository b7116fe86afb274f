"""A file that a source offers, and how its bytes come in."""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import CHUNK, Digests, OnBytes, read_through


class SourceError(WeightsError):
    """This source cannot give the file; another one may."""


class CancelledError(Exception):
    """The transfer was asked to stop; what has come in is kept."""


@dataclass(frozen=True)
class Transfer:
    """What one file's transfer reports to and listens to.

    Attributes:
        on_bytes: told of bytes done; a negative number takes some back.
        cancel: set when the transfer is to stop.
    """

    on_bytes: OnBytes = lambda _: None
    cancel: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Stop here if that was asked for.

        Raises:
            CancelledError: it was.
        """
        if self.cancel.is_set():
            raise CancelledError


@dataclass(frozen=True)
class Remote(ABC):
    """A file that a source offers.

    Attributes:
        name: its file name.
        origin: where it is, for people.
        size: bytes, or None where the source does not say.
        digests: that the source gives for it, by algorithm.
    """

    name: str
    origin: str
    size: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    @abstractmethod
    def receive(
        self, partial: Path, algorithms: Iterable[str], transfer: Transfer, *, resume: bool
    ) -> dict[str, str]:
        """Bring the whole file to a path, going on from what lies there already.

        Args:
            partial: where the bytes are gathered; it is kept when the transfer fails.
            algorithms: of the digests to compute while the bytes come in.
            transfer: progress and cancellation.
            resume: whether bytes of an earlier run may be gone on from.

        Returns:
            The digests of the whole content.

        Raises:
            SourceError: the source cannot give it.
            WeightsError: it cannot be written.
            CancelledError: the transfer was asked to stop.
        """

    def local_size(self, folder: Path) -> int | None:
        """Bytes that it will take on the disk of a folder; None where that is not known."""
        del folder
        return self.size


@dataclass(frozen=True)
class LocalRemote(Remote):
    """A file on this machine: linked where the disk is the same, else copied.

    The file itself is only read.
    """

    path: Path = Path()

    def receive(
        self, partial: Path, algorithms: Iterable[str], transfer: Transfer, *, resume: bool
    ) -> dict[str, str]:
        """See `Remote.receive`; a copy begins anew each time."""
        del resume
        taker = Digests(algorithms, self.size)

        def on_bytes(count: int) -> None:
            transfer.check()
            transfer.on_bytes(count)

        with writing(partial):
            partial.unlink(missing_ok=True)
            try:
                os.link(self.path.resolve(), partial)
            except OSError:  # another disk, or one without links
                self._copy(partial, taker, on_bytes)
                return taker.values()
        with self._reading():
            read_through(partial, taker, on_bytes=on_bytes)
        return taker.values()

    def local_size(self, folder: Path) -> int | None:
        """See `Remote.local_size`; a link takes nothing."""
        try:
            return 0 if self.path.stat().st_dev == folder.stat().st_dev else self.size
        except OSError:
            return self.size

    def _copy(self, partial: Path, taker: Digests, on_bytes: Callable[[int], None]) -> None:
        with self._reading():
            source = self.path.open("rb")
        with source, partial.open("wb") as target:
            while True:
                with self._reading():
                    data = source.read(CHUNK)
                if not data:
                    break
                target.write(data)
                taker.update(data)
                on_bytes(len(data))
            target.flush()
            os.fsync(target.fileno())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn failures to write into an error that says what to do.

    Raises:
        WeightsError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written: {error.strerror or error}; make room there, or set "
            "NSARM_HOME to a folder that has it, and run the same command again"
        ) from error
