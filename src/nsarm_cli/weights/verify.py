"""Reading files again, to see that they still are what they should be."""

from contextlib import suppress

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import Digests, OnBytes, differing, read_through
from nsarm_cli.weights.entries import FileEntry, ModelEntry
from nsarm_cli.weights.intake import Intake, MismatchError, opened
from nsarm_cli.weights.record import DAMAGED, UNCHECKED, VERIFIED
from nsarm_cli.weights.remote import writing
from nsarm_cli.weights.store import State, Store
from nsarm_cli.weights.watch import Watcher


def verify(store: Store, model: ModelEntry, watcher: Watcher) -> list[WeightsError]:
    """Read every file of a model that is on this machine and compare its digests.

    Files are compared with the catalogue, and where that has no digest with what they were when
    they came. What is found is recorded.

    Returns:
        What is wrong, one error for each file; files that are not here are not among them.

    Raises:
        WeightsError: another process is at work on the model, or nothing can be recorded.
    """
    if model.ships:
        status = store.status(model)
        return [
            WeightsError(f"{file.entry.location}: is {file.state.value}; reinstall nsarm")
            for file in status.files
            if file.state is not State.VERIFIED
        ]
    if store.status(model).state is State.MISSING:
        return []
    problems = []
    with opened(store, model) as intake:
        for file in model.files:
            if not store.paths(model, file):
                continue
            try:
                check_file(intake, file, watcher)
            except WeightsError as error:
                problems.append(error)
    return problems


def check_file(intake: Intake, file: FileEntry, watcher: Watcher) -> None:
    """Read one file, or its parts in order, and compare and record the digests.

    Raises:
        MismatchError: they are not what they should be.
        WeightsError: the file cannot be read, or parts of it are missing.
    """
    paths = intake.store.paths(intake.model, file)
    name = str(file.path)
    watcher.begin(name, sum(path.stat().st_size for path in paths))
    outcome = "failed"

    def on_bytes(count: int) -> None:
        watcher.advance(name, count)

    try:
        if paths == (intake.store.target(intake.model, file),):
            outcome = _check_whole(intake, file, on_bytes)
        else:
            intake.join(file, on_bytes)
            outcome = VERIFIED
    finally:
        watcher.end(name, outcome)


def _check_whole(intake: Intake, file: FileEntry, on_bytes: OnBytes) -> str:
    path = intake.store.target(intake.model, file)
    before = intake.record.files.get(str(file.path))
    wanted = {**({} if before is None else before.digests), **file.digests}
    taker = Digests({"sha256", *wanted})
    try:
        read_through(path, taker, on_bytes=on_bytes)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    found = taker.values()
    origin = "this machine" if before is None else before.source
    wrong = differing(wanted, found)
    with writing(intake.folder):
        if wrong is not None:
            # What it should be stays recorded, so that the next check says the same.
            intake.remember(path, DAMAGED, wanted, origin)
            raise MismatchError(
                f"{path}: has the {wrong} {found[wrong]} instead of {wanted[wrong]}, so it is "
                f"damaged; nsarm weights download {intake.model.name} sets it aside and gets "
                "it again"
            )
        known = file.digests or (before is not None and before.verdict != UNCHECKED)
        verdict = VERIFIED if known else UNCHECKED
        intake.remember(path, verdict, found, origin)
    return verdict


def is_sound(intake: Intake, file: FileEntry, watcher: Watcher) -> bool:
    """Whether a file that is here, but was not recorded, is the right one; recorded if so."""
    with suppress(MismatchError):
        check_file(intake, file, watcher)
        return True
    return False
