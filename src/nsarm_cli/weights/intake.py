"""Taking files into the store: checked first, renamed into place, remembered."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import Digests, OnBytes, differing, read_through
from nsarm_cli.weights.entries import FileEntry, ModelEntry
from nsarm_cli.weights.record import (
    DAMAGED,
    UNCHECKED,
    VERIFIED,
    JoinStamp,
    Record,
    read_record,
    stamp,
    write_record,
)
from nsarm_cli.weights.remote import writing
from nsarm_cli.weights.splits import explain_join, missing_between, natural_key
from nsarm_cli.weights.store import REJECTED, Store

LOCK_NAME = ".nsarm-lock"


class MismatchError(WeightsError):
    """A file's content is not what its digest says it must be."""


@dataclass
class Intake:
    """A model's folder, opened for changes by this process alone.

    Several threads may use it. Made by `opened`.
    """

    store: Store
    model: ModelEntry
    record: Record
    _guard: threading.Lock

    @property
    def folder(self) -> Path:
        """Where the model's files lie."""
        return self.store.downloads(self.model.name)

    def accept(
        self,
        partial: Path,
        target: Path,
        wanted: Mapping[str, str],
        found: Mapping[str, str],
        origin: str,
    ) -> None:
        """Put a file that has come whole in its place, or aside if it is not the right one.

        Args:
            partial: the file.
            target: its place.
            wanted: digests that it should have; there may be none.
            found: digests that it has; at least those.
            origin: where it came from.

        Raises:
            MismatchError: a digest differs; the file is kept aside.
            WeightsError: the folder cannot be written.
        """
        wrong = differing(wanted, found)
        if wrong is not None:
            aside = target.with_name(target.name + REJECTED)
            with writing(aside):
                partial.replace(aside)
            raise MismatchError(
                f"{target.name} from {origin} has the {wrong} {found[wrong]} instead of "
                f"{wanted[wrong]}: it was damaged on the way, or is another file; "
                f"it is kept as {aside}"
            )
        with writing(target):
            partial.replace(target)
            self.remember(target, VERIFIED if wanted else UNCHECKED, found, origin)

    def remember(self, path: Path, verdict: str, digests: Mapping[str, str], origin: str) -> None:
        """Record what was found in a file."""
        known = {name: digest for name, digest in digests.items() if name != "git"}
        with self._guard:
            name = path.relative_to(self.folder).as_posix()
            self.record.files[name] = stamp(path, verdict, known, origin)
            write_record(self.folder, self.record)

    def list_parts(self, file: FileEntry, names: tuple[str, ...]) -> None:
        """Record which parts a source has, so that one still missing is known by name."""
        with self._guard, writing(self.folder):
            self.record.listings[str(file.path)] = names
            write_record(self.folder, self.record)

    def missing_parts(self, file: FileEntry) -> list[str]:
        """Names of parts that are known to exist and are not here."""
        if file.parts is None:
            return []
        here = [path.name for path in self.store.paths(self.model, file)]
        if here == [file.path.name]:
            return []
        listed = self.record.listings.get(str(file.path), ())
        gaps = set(missing_between(here, file.parts)) | (set(listed) - set(here))
        return sorted(gaps, key=natural_key)

    def join(self, file: FileEntry, on_bytes: OnBytes = lambda _: None) -> None:
        """Check the digest of a file's parts, read one after the other in one pass.

        Raises:
            MismatchError: their join is not the file.
            WeightsError: a part is missing or cannot be read.
        """
        paths = self.store.paths(self.model, file)
        self.refuse_gaps(file)
        whole = Digests(file.digests)
        folder = file.path.parent
        parts = {}
        for path in paths:
            taker = Digests()
            read_through(path, whole, taker, on_bytes=on_bytes)
            before = self.record.files.get((folder / path.name).as_posix())
            origin = "unknown" if before is None else before.source
            if before is not None and differing(before.digests, taker.values()):
                with writing(self.folder):
                    self.remember(path, DAMAGED, before.digests, origin)
                raise MismatchError(
                    f"{path} is not what it was when it came from {origin}: the disk or another "
                    f"program changed it; run: nsarm weights download "
                    f"{self.model.name}"
                )
            with writing(self.folder):
                self.remember(path, UNCHECKED, taker.values(), origin)
            parts[path.name] = taker.values()["sha256"]
        wrong = differing(file.digests, whole.values())
        with self._guard, writing(self.folder):
            verdict = DAMAGED if wrong else VERIFIED
            self.record.joins[str(file.path)] = JoinStamp(parts, verdict, whole.values())
            write_record(self.folder, self.record)
        if wrong is not None:
            raise MismatchError(
                f"{file.path.name}: its {len(paths)} parts ({paths[0].name} to {paths[-1].name}, "
                f"in this order) join to the {wrong} {whole.values()[wrong]} instead of "
                f"{file.digests[wrong]}: {explain_join(paths)}; they are kept in "
                f"{paths[0].parent}; import the right ones over them"
            )

    def refuse_gaps(self, file: FileEntry) -> None:
        """Stop where parts are known to be missing.

        Raises:
            WeightsError: with their names.
        """
        gaps = self.missing_parts(file)
        if gaps:
            raise WeightsError(
                f"{file.path.name}: missing {', '.join(gaps)}; the other parts are kept; "
                f"get it with: nsarm weights download {self.model.name}, or import it"
            )


@contextmanager
def opened(store: Store, model: ModelEntry) -> Iterator[Intake]:
    """Open a model's folder for changes, against other processes.

    Raises:
        WeightsError: another process has it open, or it cannot be written.
    """
    folder = store.downloads(model.name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME)
    with writing(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise WeightsError(
                f"{folder}: another nsarm is working on {model.name} there; wait until it has ended"
            ) from error
    try:
        yield Intake(store, model, read_record(folder), threading.Lock())
    finally:
        lock.release()
