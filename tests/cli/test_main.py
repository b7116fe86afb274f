"""Help is instant, errors become a sentence and a code, bugs keep their traceback."""

import os
import signal
import subprocess
import sys
from importlib import import_module

import pytest
import typer

import nsarm_cli
from nsarm_cli.cli import main as entry
from nsarm_cli.errors import ConfigError, DeviceError, ImageError, NsarmError, WeightsError


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nsarm_cli", *arguments], capture_output=True, text=True, check=False
    )


def main_with(monkeypatch, error: BaseException) -> int:
    """Run a command that raises."""

    def build_app() -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def command() -> None:
            raise error

        return app

    monkeypatch.setattr(entry, "build_app", build_app)
    return entry.main([])


def test_help_does_not_wait_for_heavy_imports():
    # Counting modules rather than seconds: a busy machine must not fail this test.
    program = (
        "import sys; from nsarm_cli.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors', 'transformers', 'huggingface_hub'};"
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or None)"
    )
    for arguments in (["--help"], ["--version"], ["upscale", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_importing_the_package_does_not_import_torch():
    program = (
        "import sys, nsarm_cli; assert 'torch' not in sys.modules;"
        "from nsarm_cli import NsarmError; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_public_names_are_there_and_no_others():
    from nsarm_cli import Sampling, Upscaler

    assert Upscaler.__module__ == "nsarm_cli.pipeline"
    assert Sampling().top_p == 0.97
    with pytest.raises(AttributeError, match="no attribute 'Downscaler'"):
        nsarm_cli.Downscaler  # noqa: B018


def test_the_module_runs_as_the_program_does():
    done = run_process("--version")
    assert (done.returncode, done.stdout) == (0, f"nsarm {nsarm_cli.__version__}\n")


def test_without_arguments_it_shows_the_help():
    done = run_process()
    assert "Usage: nsarm" in done.stdout + done.stderr
    assert "upscale" in done.stdout + done.stderr


def test_every_command_has_a_module_and_shows_its_help(capsys):
    for name in entry.COMMANDS:
        assert isinstance(import_module(f"nsarm_cli.cli.{name}").app, typer.Typer)
        assert entry.main([name, "--help"]) == 0
        assert f"nsarm {name}" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys):
    assert entry.main(["upscael"]) == 2
    assert "Did you mean 'upscale'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(ImageError, 3), (WeightsError, 4), (DeviceError, 5), (ConfigError, 6), (NsarmError, 1)],
)
def test_a_known_error_is_one_line_on_stderr_and_its_exit_code(monkeypatch, capsys, error, code):
    assert main_with(monkeypatch, error("[red]a[/red]: is \x1b[2Jbroken; mend it")) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: [red]a[/red]: is \\x1b[2Jbroken; mend it\n"


def test_a_long_error_is_not_wrapped(monkeypatch, capsys):
    main_with(monkeypatch, ImageError("word " * 100))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        main_with(monkeypatch, ZeroDivisionError())


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    assert main_with(monkeypatch, KeyboardInterrupt()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_signal_handler_is_restored(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    main_with(monkeypatch, ImageError("x"))
    assert signal.getsignal(signal.SIGTERM) is before


# Like the command, but with a model that never finishes; says when it has begun.
SLOW = """
import signal, sys, time
import nsarm_cli.weights.families
from nsarm_cli.cli.main import main
from nsarm_cli.models.interface import Sampling

class Slow:
    scale, window, overlap, sampling, color = 4, 16, 4, Sampling(), "none"
    def resolve(self, *arguments):
        print("begun", flush=True)
        time.sleep(3600)

nsarm_cli.weights.families.load_resolver = lambda *_: Slow()
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_nothing_half_written(photo, tmp_path, sent, code):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "upscale", str(photo), "-o", f"{out}/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, sent)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(out.iterdir()) == []
