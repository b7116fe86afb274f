"""Ctrl-C and SIGTERM, as a terminal or a job system sends them: to every process of the run."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_ends_well(
    number, write_settings, photos, tmp_path, saved_in
):
    """Workers used to print the message once more, and SIGTERM to kill them and the run."""
    out = tmp_path / "out"
    checkpoints = out / "checkpoints"
    settings = write_settings(steps=100_000, workers=1, save_minutes=0, tracker="none")
    options = ["--data", photos, "--config", settings, "--out", out, "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nsarm_cli", "train", "stage1", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while (
            not list(checkpoints.glob("step-*"))
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, number)
        # Ends with the last process that holds the pipes: no worker is left behind.
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()

    assert process.returncode == 0, stderr
    assert stdout == f"{out}\n"
    assert stderr.count("stopping after this step") == 1
    (step,) = re.findall(r"stopped and saved after step (\d+); the same command goes on", stderr)
    assert "Traceback" not in stderr
    assert saved_in(out).step == int(step)
    assert max(path.name for path in checkpoints.iterdir()) == f"step-{int(step):08d}"
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "config.json",
        "model.safetensors",
        "run.json",
        "training.toml",
    ]


def test_a_bug_in_a_worker_ends_the_program(photos):
    """Workers that ignore SIGTERM would be waited for without end."""
    program = (
        "import sys; from pathlib import Path;"
        "from nsarm_cli.degradation.recipe import REALESRGAN_LIGHT;"
        "from nsarm_cli.training.data import Batches, Framing;"
        "from nsarm_cli.training.loading import loader;"
        "from nsarm_cli.training.order import ShuffledOrder;"
        "from nsarm_cli.training.photos import PhotoStore;"
        "photos = PhotoStore([Path(sys.argv[1])]);"
        # The degradation takes no crop of this side.
        "framing = Framing({1.0: (30, 30)}, recipe=REALESRGAN_LIGHT);"
        "crops = Batches(ShuffledOrder(photos, 1, 2, 0), framing, 1, 0, 2);"
        "next(loader(crops, 0, 1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(photos)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "an HR side of 30" in done.stderr
