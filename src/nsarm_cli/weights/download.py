"""Bringing a model's files to this machine: several at once, resumed, checked, remembered."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from threading import Event

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.entries import FileEntry, ModelEntry, Source
from nsarm_cli.weights.intake import Intake, MismatchError, opened
from nsarm_cli.weights.record import DAMAGED, UNCHECKED, VERIFIED
from nsarm_cli.weights.remote import Remote, SourceError, Transfer, writing
from nsarm_cli.weights.sources import find
from nsarm_cli.weights.splits import natural_key
from nsarm_cli.weights.store import PARTIAL, REJECTED, State, Store
from nsarm_cli.weights.units import format_bytes
from nsarm_cli.weights.verify import check_file, is_sound
from nsarm_cli.weights.watch import Watcher
from nsarm_cli.weights.workers import Workers

SPARE_BYTES = 100_000_000
"""Left free on the disk, so that a download does not fill it to the last byte."""


@dataclass(frozen=True)
class _Job:
    """One file, or one part, to fetch.

    Attributes:
        file: that it is, or is a part of.
        target: its place.
        remote: what to fetch.
        others: sources to ask when that fails.
    """

    file: FileEntry
    target: Path
    remote: Remote
    others: tuple[Source, ...] = ()


def download(store: Store, model: ModelEntry, watcher: Watcher, *, jobs: int = 4) -> None:
    """Fetch what is missing of a model and check all of it.

    What is there and checked is left alone; what was begun is gone on with. A file that fails
    does not stop the others.

    Args:
        store: where the files go.
        model: whose files to fetch; nothing is done for one that ships.
        watcher: told of the progress.
        jobs: files fetched at once, at least 1.

    Raises:
        WeightsError: a file could not be had; the message says which, why, and what to do.
    """
    if model.ships:
        return
    with opened(store, model) as intake, Workers(jobs) as workers:
        wanted = [file for file in model.files if _is_wanted(intake, file, watcher)]
        plans = workers.run(lambda file: _look_up(intake, file), wanted)
        planned = [job for plan in plans for job in plan]
        check_space(
            intake.folder,
            [(job.remote.local_size(intake.folder), _partial(job.target)) for job in planned],
        )
        workers.run(lambda job: _fetch(intake, job, watcher, workers.cancel), planned)
        unjoined = [file for file in wanted if file.parts is not None]
        names = {job.target.name for job in planned}
        workers.run(lambda file: _join(intake, file, watcher, names), unjoined)
        workers.raise_failures()


def check_space(folder: Path, sizes: Sequence[tuple[int | None, Path]]) -> None:
    """Refuse what the disk cannot hold, before the work begins.

    Args:
        folder: on that disk.
        sizes: bytes of each file, None where that is not known, and where an earlier run may
            have left the beginning of it.

    Raises:
        WeightsError: there is too little room.
    """
    needed = 0
    for size, partial in sizes:
        held = partial.stat().st_size if partial.is_file() else 0
        needed += max(0, (size or 0) - held)
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        raise WeightsError(
            f"{folder}: has {format_bytes(free)} free, and {format_bytes(needed)} are to come "
            f"(and {format_bytes(SPARE_BYTES)} to spare); make room there, or set NSARM_HOME to "
            "a folder on a larger disk"
        )


def _is_wanted(intake: Intake, file: FileEntry, watcher: Watcher) -> bool:
    """Whether something of a file must be fetched or joined; checks what is here unrecorded."""
    status = next(s for s in intake.store.status(intake.model).files if s.entry == file)
    target = intake.store.target(intake.model, file)
    if status.state is State.VERIFIED:
        return False
    if status.paths != (target,):  # in parts, or not here at all
        complete = status.paths and status.state is State.PARTIAL and not _has_gaps(intake, file)
        return not (complete and is_sound(intake, file, watcher))
    stamp = intake.record.files.get(str(file.path))
    if status.state is State.PRESENT:
        if stamp is not None and stamp.fits(target):
            return False  # there is nothing to compare it with
        if is_sound(intake, file, watcher):
            return False
    _set_aside(target)
    return True


def _has_gaps(intake: Intake, file: FileEntry) -> bool:
    """Whether parts are being fetched, or are known to be missing."""
    return bool(intake.store.unfinished(intake.model, file) or intake.missing_parts(file))


def _look_up(intake: Intake, file: FileEntry) -> list[_Job]:
    """Ask the sources of a file, in order, until one has it."""
    reasons = []
    for place, source in enumerate(file.sources):
        try:
            found = find(source, file)
            jobs = [_job(intake, file, remote, file.sources[place + 1 :]) for remote in found]
        except SourceError as error:
            reasons.append(str(error))
            continue
        if file.parts is None:
            return jobs[:1]
        names = sorted((job.remote.name for job in jobs), key=natural_key)
        intake.list_parts(file, tuple(names))
        return [job for job in jobs if _is_needed(intake, job)]
    raise WeightsError(f"{file.path}: could not be had: {'; '.join(reasons)}")


def _job(intake: Intake, file: FileEntry, remote: Remote, others: tuple[Source, ...]) -> _Job:
    """Plan to fetch what a source offers, unless it says itself that it is another file."""
    target = intake.store.target(intake.model, file)
    if file.parts is not None:
        # The name comes from a server: only its last component may choose a place.
        return _Job(file, target.with_name(PurePosixPath(remote.name).name), remote)
    if remote.size is None:
        remote = replace(remote, size=file.size)
    if file.size not in (None, remote.size):
        raise SourceError(
            f"{remote.origin}: {remote.name} has {remote.size} bytes and not {file.size}"
        )
    for name, digest in file.digests.items():
        if remote.digests.get(name, digest) != digest:
            raise SourceError(
                f"{remote.origin}: {remote.name} has the {name} {remote.digests[name]} and not "
                f"{digest}"
            )
    return _Job(file, target, remote, others)


def _is_needed(intake: Intake, job: _Job) -> bool:
    """Whether a part is not here, or here and damaged, which is then set aside."""
    if not job.target.is_file():
        return True
    name = job.target.relative_to(intake.folder).as_posix()
    stamp = intake.record.files.get(name)
    if stamp is None or not stamp.fits(job.target) or stamp.verdict != DAMAGED:
        return False  # joining tells whether it is right
    _set_aside(job.target)
    return True


def _fetch(intake: Intake, job: _Job, watcher: Watcher, cancel: Event) -> None:
    """Fetch one file, going on to its further sources when one fails."""
    reasons: list[str] = []
    for candidate in _candidates(intake, job, reasons):
        try:
            _fetch_from(intake, candidate, watcher, cancel)
        except (SourceError, MismatchError) as error:
            reasons.append(str(error))
        else:
            return
    raise WeightsError(f"{job.file.path}: could not be had: {'; '.join(reasons)}")


def _candidates(intake: Intake, job: _Job, reasons: list[str]) -> Iterator[_Job]:
    yield job
    for source in job.others:
        try:
            yield from (_job(intake, job.file, remote, ()) for remote in find(source, job.file))
        except SourceError as error:
            reasons.append(str(error))


def _fetch_from(intake: Intake, job: _Job, watcher: Watcher, cancel: Event) -> None:
    wanted = dict(job.remote.digests)
    if job.file.parts is None:
        wanted |= job.file.digests
    algorithms = {"sha256", *wanted}
    partial = _partial(job.target)
    # Going on from bytes of another day is safe only where a digest will tell.
    resume = bool(wanted) or job.file.parts is not None
    begun = resume and partial.is_file()
    with _watched(intake, job, watcher, cancel) as (transfer, ended):
        with writing(partial):
            partial.parent.mkdir(parents=True, exist_ok=True)
        found = job.remote.receive(partial, algorithms, transfer, resume=resume)
        try:
            intake.accept(partial, job.target, wanted, found, job.remote.origin)
        except MismatchError:
            if not begun:
                raise
            # The beginning may have been of another release: once more, from nothing.
            found = job.remote.receive(partial, algorithms, transfer, resume=False)
            intake.accept(partial, job.target, wanted, found, job.remote.origin)
        ended.append(VERIFIED if wanted else UNCHECKED)


@contextmanager
def _watched(
    intake: Intake, job: _Job, watcher: Watcher, cancel: Event
) -> Iterator[tuple[Transfer, list[str]]]:
    name = job.target.relative_to(intake.folder).as_posix()
    watcher.begin(name, job.remote.size)
    ended: list[str] = []
    try:
        yield Transfer(lambda count: watcher.advance(name, count), cancel), ended
    finally:
        watcher.end(name, ended[0] if ended else "failed")


def _join(intake: Intake, file: FileEntry, watcher: Watcher, planned: set[str]) -> None:
    """Check parts together once all of them are here.

    Parts that were to come and failed have been complained of already.
    """
    status = next(s for s in intake.store.status(intake.model).files if s.entry == file)
    failed = planned.intersection(intake.missing_parts(file))
    if status.state is not State.VERIFIED and status.paths and not failed:
        check_file(intake, file, watcher)


def _partial(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL)


def _set_aside(path: Path) -> None:
    with writing(path):
        path.replace(path.with_name(path.name + REJECTED))
