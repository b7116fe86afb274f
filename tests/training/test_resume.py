"""A run that stops and goes on ends where an unbroken one does."""

import dataclasses
import signal

import pytest
import torch
from safetensors.torch import load_file

from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import BranchConfig, TransformationConfig
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model

STAGES = ("tokenizer", "prior", "stage1", "stage2", "decoder")


def assert_same_files(one, other, names):
    for name in names:
        if name.endswith(".safetensors"):
            first, second = load_file(one / name), load_file(other / name)
            assert first.keys() == second.keys()
            assert [k for k in first if not torch.equal(first[k], second[k])] == []
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes()


def assert_same_checkpoints(one, other):
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    assert [k for k in one.tensors if not torch.equal(one.tensors[k], other.tensors[k])] == []


@pytest.mark.parametrize("stage", STAGES)
def test_two_steps_a_stop_and_two_more_are_four_steps(
    stage, nsarm_train, write_settings, interrupt_during, photos, tmp_path, monkeypatch, saved_in
):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    command = (stage, "--data", photos, "--val", photos, "--config", write_settings(), "--out")

    assert nsarm_train(*command, whole).code == 0
    with monkeypatch.context():
        interrupt_during(2)
        stopped = nsarm_train(*command, parted)
        assert stopped.code == 0
        assert "stopped and saved after step 2" in stopped.err
        assert saved_in(parted).step == 2
    monkeypatch.undo()
    resumed = nsarm_train(*command, parted)

    assert (resumed.code, resumed.out) == (0, f"{parted}\n")
    assert "stopped" not in resumed.err
    assert saved_in(parted).step == 4
    assert_same_checkpoints(saved_in(whole), saved_in(parted))
    assert_same_files(
        whole,
        parted,
        [
            "model.safetensors",
            "config.json",
            "training.toml",
            "validation-000002.png",
            "validation-000004.png",
        ],
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_dropout_resumes_too(
    workers,
    micro_config,
    nsarm_train,
    write_settings,
    interrupt_during,
    photos,
    tmp_path,
    monkeypatch,
    saved_in,
):
    """Making the data loader used to draw from the random numbers that dropout uses."""
    branches = tuple(BranchConfig(side, 16, 1, 2) for side in (2, 4))
    dropout = dataclasses.replace(
        micro_config, transformation=TransformationConfig(8, 16, (8, 8), branches)
    )
    write_model(initialise(NsarmModel(dropout)), tmp_path / "dropout")
    settings = write_settings(model=str(tmp_path / "dropout"), workers=workers)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    command = ("stage1", "--data", photos, "--config", settings, "--out")

    assert nsarm_train(*command, whole).code == 0
    interrupt_during(2)
    assert nsarm_train(*command, parted).code == 0
    assert saved_in(parted).step == 2
    monkeypatch.undo()
    assert nsarm_train(*command, parted).code == 0

    assert_same_checkpoints(saved_in(whole), saved_in(parted))


def test_a_finished_run_changes_nothing_when_it_is_run_again(
    nsarm_train, write_settings, photos, tmp_path
):
    out = tmp_path / "out"
    command = ("stage1", "--data", photos, "--config", write_settings(), "--out", out)
    assert nsarm_train(*command).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}

    again = nsarm_train(*command)

    assert again.code == 0
    assert "stopped" not in again.err
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


def test_a_run_goes_on_under_settings_with_more_steps(
    nsarm_train, write_settings, photos, tmp_path, saved_in
):
    out = tmp_path / "out"
    nsarm_train("stage1", "--data", photos, "--config", write_settings(steps=2), "--out", out)
    assert saved_in(out).step == 2

    nsarm_train("stage1", "--data", photos, "--config", write_settings(steps=3), "--out", out)

    assert saved_in(out).step == 3


def test_a_second_interrupt_stops_at_once_and_leaves_the_last_checkpoint(
    nsarm_train, write_settings, interrupt_during, photos, tmp_path, saved_in
):
    out = tmp_path / "out"
    command = ("stage1", "--data", photos, "--config", write_settings(save_minutes=0), "--out", out)
    interrupt_during(3, [signal.SIGINT, signal.SIGINT])

    assert nsarm_train(*command).code == 130

    assert saved_in(out).step == 2
    assert not (out / "model.safetensors").exists()
