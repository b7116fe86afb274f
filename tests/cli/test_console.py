"""What the terminal shows."""

import io
import logging

import pytest
from rich.console import Console

from nsarm_cli.cli import console


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """Stand in for a terminal on stderr."""
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "_stderr", lambda: Console(file=screen, force_terminal=True, width=100)
    )
    monkeypatch.setenv("TERM", "xterm")
    return screen


def run_bar() -> None:
    with console.progress_bar(2) as bar:
        on_progress = bar.begin(0, "[a] \x1bphoto.png (1 of 2)")
        on_progress(0.5)
        with bar.hidden():
            console.result("out/photo.png")
        bar.begin(1, "other.png (2 of 2)")


def test_a_terminal_shows_what_is_done_how_far_and_for_how_long(terminal, capsys):
    run_bar()
    shown = terminal.getvalue()
    for words in ("[a] \\x1bphoto.png (1 of 2)", "25%", "ETA", "other.png (2 of 2)", "50%"):
        assert words in shown
    assert "out/photo.png" not in shown  # results stay on stdout, bar or not
    assert capsys.readouterr().out == "out/photo.png\n"


def test_without_a_terminal_there_is_no_bar(capsys):
    run_bar()
    assert capsys.readouterr() == ("out/photo.png\n", "")


def test_a_bar_is_cleared_when_the_work_fails(terminal):
    def fail() -> None:
        with console.progress_bar(1) as bar:
            bar.begin(0, "photo.png")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased, the cursor shown before


def test_warnings_of_the_package_appear_once_and_details_do_not(capsys):
    console.set_up()
    console.set_up()
    logger = logging.getLogger("nsarm_cli.some.module")
    logger.warning("look at %s", "this")
    logger.info("not worth a line")
    assert capsys.readouterr().err == "warning: look at this\n"
