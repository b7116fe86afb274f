"""Ctrl-C and SIGTERM, as a terminal or a job system sends them: to every process of the run."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_and_ends_well(number, write_settings, photos, tmp_path):
    """Workers used to print the message once more, and SIGTERM to kill them and the run."""
    out = tmp_path / "out"
    checkpoint = out / "checkpoint.safetensors"
    settings = write_settings(steps=100_000, workers=1, save_minutes=0)
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
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()

    assert process.returncode == 0, stderr
    assert stdout == f"{out}\n"
    assert stderr.count("stopping after this step") == 1
    (step,) = re.findall(r"stopped and saved after step (\d+); the same command goes on", stderr)
    assert "Traceback" not in stderr
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)
    with safe_open(checkpoint, framework="pt") as file:
        assert file.metadata() == {"step": step}
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "model.safetensors",
        "training.toml",
    ]
