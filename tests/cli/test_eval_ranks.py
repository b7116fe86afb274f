"""`nsarm eval` in two real processes, as torchrun starts them."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch.distributed as dist


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_write_what_one_writes(make_set, run_cli, tmp_path):
    arguments = ["eval", "--dataset", str(make_set(("a", "b", "c"))), "--model", "none"]
    arguments += ["--device", "cpu", "--measures", "psnr_y,ssim_y,niqe", "-o"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "nsarm_cli", *arguments, str(tmp_path / "two")],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "pictures: 3 pictures" in said[0][0]
    assert said[1][0] == ""
    assert run_cli(*arguments, tmp_path / "one").code == 0
    two, one = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("two", "one"))
    assert two["sets"] == one["sets"]
    lines = [
        len((tmp_path / "two" / "cache" / f"measures-{rank}.jsonl").read_text().splitlines())
        for rank in range(2)
    ]
    assert lines == [6, 3]  # two pictures and one, each under three measures
