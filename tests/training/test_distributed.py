"""Several processes do what one does: losses, gradients, resuming, stopping, being killed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.distributed import Ranks, joined, part_of_batch
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model

IN_MANY = Path(__file__).with_name("in_many.py")

# A constant rate, so that a run of more steps begins as one of fewer.
SETTINGS = {"batch": 4, "warmup": 0, "final_lr": 1.0, "save_minutes": 0}


def torchrun(processes, commands, folder, *options) -> str:
    """Run commands in several processes; return what they said."""
    path = folder / "commands.json"
    path.write_text(json.dumps(commands))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", *options, str(IN_MANY), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_nearly_same(one, other):
    """Compare the moments, which are sums of gradients.

    Weights may differ: Adam makes a full step of a gradient that is nothing but rounding.
    """
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        if name.endswith((".exp_avg", ".exp_avg_sq")):
            scale = float(tensor.abs().max())
            torch.testing.assert_close(
                other.tensors[name], tensor, rtol=1e-3, atol=1e-3 * scale + 1e-9
            )


@pytest.fixture
def text_folder(micro_config, tmp_path):
    """A micro model with a text encoder's condition, so with cross-attention."""
    transformer = dataclasses.replace(micro_config.transformer, cross=True)
    config = dataclasses.replace(micro_config, text_width=128, transformer=transformer)
    torch.manual_seed(1)
    write_model(initialise(NsarmModel(config)), tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def command(write_settings, photos, tmp_path):
    """Arguments of `nsarm train` for a stage whose folder has a name."""

    def make(stage, out, *options, **changes):
        path = write_settings(**(SETTINGS | changes)).rename(tmp_path / f"{out}.toml")
        given = ("--data", photos, "--config", path, "--out", tmp_path / out, *options)
        return ["train", stage, *map(str, given)]

    return make


def test_four_processes_do_what_one_does_and_two_and_one_go_on_from_there(
    command, text_folder, photos, nsarm_train, saved_in, tmp_path
):
    changes = {
        "tokenizer": {"entropy": 0.0},  # the share of used bits is each process's own
        "stage1": {"batch": 8, "accumulate": 2},
        "stage2": {"model": str(text_folder), "ema": 0.5, "recompute": "full"},
    }
    many = [
        {"arguments": command(stage, f"{stage}-4", steps=1, **changes[stage])}
        for stage in ("tokenizer", "stage1")
    ]
    # The second process of four is told to stop in the second of three steps.
    options = ("--val", photos)
    fault = ["stop", 1, 1]
    arguments = command("stage2", "stage2-4", *options, steps=3, **changes["stage2"])
    many.append({"arguments": arguments, "fault": fault})
    said = torchrun(4, many, tmp_path)
    assert said.count("stopped and saved after step 2") == 1
    assert said.count("Traceback") == 0

    for stage, steps in (("tokenizer", 1), ("stage1", 1), ("stage2", 2)):
        alone = nsarm_train(*command(stage, f"{stage}-1", steps=steps, **changes[stage])[1:])
        assert alone.code == 0
        assert_nearly_same(saved_in(tmp_path / f"{stage}-1"), saved_in(tmp_path / f"{stage}-4"))

    # From the checkpoint of four: one process, and two of which one is killed and starts again.
    shutil.copytree(tmp_path / "stage2-4", tmp_path / "on-1")
    shutil.copytree(tmp_path / "stage2-4", tmp_path / "on-2")
    more = {"steps": 4} | changes["stage2"]
    assert nsarm_train(*command("stage2", "on-1", **more)[1:]).code == 0
    arguments = command("stage2", "on-2", *options, validate_every=100, **more)
    killed = [{"arguments": arguments, "fault": ["kill", 1, 3]}]
    said = torchrun(2, killed, tmp_path, "--max-restarts=1")
    assert "exitcode: -9" in said
    assert said.count("step 4: ") == 1
    assert "lost contact with another" in said
    assert "Traceback" not in said
    assert nsarm_train(*command("stage2", "on-0", **more)[1:]).code == 0
    for resumed in ("on-1", "on-2"):
        assert_nearly_same(saved_in(tmp_path / "on-0"), saved_in(tmp_path / resumed))
    for file in ("model.safetensors", "average.safetensors"):
        one, other = load_file(tmp_path / "on-1" / file), load_file(tmp_path / "on-2" / file)
        assert one.keys() == other.keys()
        assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in other.items()}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_processes_share_a_batch_evenly_or_not_at_all(accumulate):
    parts = [part_of_batch(12, accumulate, Ranks(rank=rank, world=4)) for rank in range(4)]
    assert parts == [(0, 3), (3, 3), (6, 3), (9, 3)]
    with pytest.raises(ConfigError, match=f"give a multiple of {4 * accumulate}"):
        part_of_batch(13, accumulate, Ranks(world=4))


def test_a_process_alone_joins_nothing():
    with joined("cpu") as (ranks, _):
        assert ranks == Ranks()
        assert not torch.distributed.is_initialized()
