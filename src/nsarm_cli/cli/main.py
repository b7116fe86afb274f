"""The entry point: assembles the commands and turns errors into a sentence and an exit code.

| code | meaning |
|---|---|
| 0 | success |
| 1 | a bug in nsarm, with its traceback |
| 2 | wrong option or argument |
| 3 to 6 | an `NsarmError`; see `nsarm_cli.errors` |
| 130, 143 | interrupted (Ctrl-C), terminated |
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Annotated

import typer
from typer.main import get_command

from nsarm_cli import __version__
from nsarm_cli.cli import console
from nsarm_cli.errors import DeviceError, NsarmError

COMMANDS = ("upscale", "weights", "bench", "train", "eval")
"""Modules of this package, in the order of the help; each has a `typer.Typer` named `app`."""

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        The exit code. Exceptions that are not an `NsarmError` pass through.
    """
    console.set_up()
    with _terminable():
        try:
            # Typer ends in SystemExit always, and turns Ctrl-C into code 130.
            get_command(build_app())(args=argv, prog_name="nsarm")
        except NsarmError as error:
            console.error(str(error))
            return error.exit_code
        except MemoryError:
            console.error("main memory is full; close other programs, or work on less at once")
            return DeviceError.exit_code
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
            if code in (INTERRUPTED, TERMINATED):
                console.say("interrupted")
            return code
    return 0


def build_app() -> typer.Typer:
    """Assemble all commands, so that a command's module loads when an app is asked for."""
    app = typer.Typer(
        name="nsarm",
        help="Super-resolution of real photographs with bitwise next-scale autoregression.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: shorter, quicker, and readable in 80 columns
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in COMMANDS:
        app.add_typer(import_module(f"nsarm_cli.cli.{name}").app)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        console.result(f"nsarm {__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that temporary files go and nothing is half-written."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():  # Python forbids it there
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
