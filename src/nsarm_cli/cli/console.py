"""What the terminal shows: results on stdout, everything else on stderr.

Paths are printed as they are: Rich's markup is off, since file names may hold brackets, and
so is wrapping, since a wrapped path cannot be copied.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

_TABLE_WIDTH = 200
"""Columns a table may take; it takes no more than it needs."""


def set_up() -> None:
    """Let any file name be printed, and show the package's warnings on stderr."""
    # A name that is not UTF-8 comes out of stdout as the bytes that it has on disk.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    logger = logging.getLogger("nsarm_cli")
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(_ConsoleHandler(logging.WARNING))


def result(text: str) -> None:
    """Print a result on stdout, at once and unchanged."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def result_table(table: Table) -> None:
    """Print a table of results on stdout, in full whatever the terminal's width."""
    Console(file=sys.stdout, width=_TABLE_WIDTH).print(table)
    sys.stdout.flush()


def say(text: str) -> None:
    """Print a line for the person on stderr."""
    _print(_stderr(), text)


def error(text: str) -> None:
    """Print an error on stderr."""
    say(f"error: {text}")


class Bar:
    """A progress bar with the time left, on stderr; silent where stderr is no terminal."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def begin(self, done: int, label: str) -> Callable[[float], None]:
        """Show the bar at the beginning of a unit of work.

        Args:
            done: units finished before it.
            label: what the bar says meanwhile.

        Returns:
            What to call with the finished share of the unit, in [0, 1].
        """
        self._progress.update(self._task, completed=done, description=_printable(label))
        self._progress.start()
        return lambda share: self._progress.update(self._task, completed=done + share)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Clear the bar while lines are printed, so that they do not run into it."""
        self._progress.stop()
        yield
        self._progress.start()


@contextmanager
def progress_bar(total: int) -> Iterator[Bar]:
    """Give a bar, which is gone when the block ends.

    Args:
        total: units of work.
    """
    console = _stderr()
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,
        # The bar lives on stderr: redirecting would send results on stdout there too.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        yield Bar(progress, total)
    finally:
        progress.stop()


class Transfers:
    """A bar with rate and time left for each file on its way, and a line when it has come.

    Its methods are those of `weights.watch.Watcher`, and may be called from any thread.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def begin(self, name: str, total: int | None) -> None:
        """Show the bar of a file."""
        self._tasks[name] = self._progress.add_task(_printable(name), total=total)
        self._progress.start()

    def advance(self, name: str, count: int) -> None:
        """Move the bar of a file."""
        self._progress.advance(self._tasks[name], count)

    def end(self, name: str, outcome: str) -> None:
        """Replace the bar of a file by a line."""
        self._progress.remove_task(self._tasks.pop(name))
        _print(self._progress.console, f"{name}: {outcome}")


@contextmanager
def transfers() -> Iterator[Transfers]:
    """Give something that follows files; its bars are gone when the block ends."""
    console = _stderr()
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        yield Transfers(progress)
    finally:
        progress.stop()


class _ConsoleHandler(logging.Handler):
    """Prints the package's log records as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def _stderr() -> Console:
    return Console(stderr=True)  # made when used, so that it follows sys.stderr


def _print(console: Console, text: str) -> None:
    console.print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def _printable(text: str) -> str:
    """Escape control characters, so that a file name cannot steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
