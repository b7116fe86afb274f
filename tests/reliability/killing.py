"""Run `nsarm` in a process that is killed just before its n-th change to the disk.

Python tells audit hooks of every file that is opened for writing, renamed, linked or removed,
whoever asks for it, so every phase of a command can be cut off without knowing it. The process
is forked from a server that has loaded the package already, which makes a kill cheap.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "tests.reliability.killing",
        "tests.conftest",  # torch, and much else
        "nsarm_cli.cli.upscale",
        "nsarm_cli.cli.weights_files",
        "nsarm_cli.imaging.comparison",
        "nsarm_cli.pipeline",
        "nsarm_cli.weights.convert",
        "nsarm_cli.weights.families",
        "huggingface_hub.file_download",
        "transformers.models.t5.modeling_t5",
    ]
)


class Ended(NamedTuple):
    """How a run ended: exit code (-9 when killed), changes to the disk, and its stderr."""

    code: int
    changes: int
    err: str


def run(
    arguments: Sequence[object],
    scratch: Path,
    *,
    kill_at: int | None = None,
    prepare: Callable[[], None] = bool,
    environment: dict[str, str] | None = None,
) -> Ended:
    """Run a command.

    Args:
        arguments: of `nsarm`.
        scratch: a folder for its output; changes there are not counted.
        kill_at: number of the change before which it is killed, from 1; None lets it end.
        prepare: called in the process first; a function of a module.
        environment: variables to set.
    """
    changes = _context.Value("i", 0)
    process = _context.Process(
        target=_child,
        args=([str(a) for a in arguments], scratch, kill_at, prepare, environment or {}, changes),
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return Ended(process.exitcode, changes.value, (scratch / "stderr").read_text())


def _child(
    arguments: list[str],
    scratch: Path,
    kill_at: int | None,
    prepare: Callable[[], None],
    environment: dict[str, str],
    changes: Any,
) -> None:
    import torch

    from nsarm_cli.cli.main import main

    torch.set_num_threads(1)
    os.environ.update(environment)
    with (
        (scratch / "stderr").open("w") as err,
        (scratch / "stdout").open("w") as out,
        contextlib.redirect_stderr(err),
        contextlib.redirect_stdout(out),
    ):
        prepare()
        armed = True

        def watch(event: str, values: tuple[Any, ...]) -> None:
            is_change = event in _CHANGES or (
                event == "open" and isinstance(values[2], int) and values[2] & _WRITING
            )
            if not (armed and is_change) or str(values[0]).startswith(("/dev/", "/proc/")):
                return
            changes.value += 1
            if changes.value == kill_at:
                err.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        code = main(arguments)
        armed = False
    sys.exit(code)
