"""Checkpoints are whole or not there, and only continue the run that they belong to."""

import os
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.errors import ConfigError
from nsarm_cli.training import checkpoint
from nsarm_cli.training.checkpoint import Checkpoints, save_atomically
from nsarm_cli.training.distributed import Ranks

STEP_1 = "step-00000001"


def tensors(factor: float = 1.0, width: int = 4) -> dict[str, torch.Tensor]:
    values = torch.arange(3.0 * width).reshape(width, 3) * factor
    return {"model.0.weight": values, "optimizer.0.weight.exp_avg": values + 1}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def run(tmp_path):
    """A run with one checkpoint, of step 1."""
    checkpoints = Checkpoints(tmp_path / "run", 2, Ranks())
    checkpoints.save(tensors(), 1)
    checkpoints.finish()
    return tmp_path / "run"


def resume(run, into, keep=2) -> int:
    return Checkpoints(run, keep, Ranks()).resume(into)[0]


def test_loading_restores_every_number_and_the_step(run):
    into = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
    assert resume(run, into) == 1
    assert all(torch.equal(into[name], tensor) for name, tensor in tensors().items())


def test_a_run_without_checkpoints_begins_at_step_0(tmp_path):
    assert resume(tmp_path / "new", tensors()) == 0


def test_what_changes_after_saving_began_is_not_in_the_file(tmp_path):
    """The file is written in the background, while training goes on."""
    checkpoints = Checkpoints(tmp_path, 2, Ranks())
    state = {"model.x": torch.ones(1000, 1000)}
    checkpoints.save(state, 1)
    state["model.x"].zero_()
    checkpoints.finish()
    into = {"model.x": torch.zeros(1000, 1000)}
    resume(tmp_path, into)
    assert bool((into["model.x"] == 1).all())


def test_the_newest_stay_and_nothing_else_is_deleted(run):
    mine = run / "checkpoints" / "notes"
    mine.mkdir()
    (run / "checkpoints" / STEP_1 / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(run, 2, Ranks())
    for step in (2, 3, 4):
        checkpoints.save(tensors(step), step)
    checkpoints.finish()
    assert names(run / "checkpoints") == ["notes", STEP_1, "step-00000003", "step-00000004"]
    assert names(run / "checkpoints" / STEP_1) == ["notes.txt"]
    into = tensors(0)
    assert resume(run, into) == 4
    assert torch.equal(into["model.0.weight"], tensors(4)["model.0.weight"])


def test_a_step_that_is_saved_is_not_saved_again(run):
    before = (run / "checkpoints" / STEP_1).stat().st_mtime_ns
    again = Checkpoints(run, 2, Ranks())
    again.save(tensors(9), 1)
    again.finish()
    assert (run / "checkpoints" / STEP_1).stat().st_mtime_ns == before


def test_what_a_killed_run_left_half_written_is_removed(run):
    left = run / "checkpoints" / ".step-00000002.tmp"
    left.mkdir()
    (left / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half of a file")
    assert resume(run, tensors(0)) == 1
    assert names(run / "checkpoints") == [STEP_1]


def fail_to_sync(_file):
    raise OSError(28, "No space left on device")


def test_a_failure_while_writing_keeps_the_old_one_and_leaves_no_other(run, monkeypatch):
    checkpoints = Checkpoints(run, 2, Ranks())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_to_sync)
        checkpoints.save(tensors(2), 2)
        with pytest.raises(ConfigError, match=r"step-00000002: cannot be written \(.*No space"):
            checkpoints.finish()
    assert names(run / "checkpoints") == [STEP_1]
    checkpoints.save(tensors(2), 2)  # and the next one may work
    checkpoints.finish()
    assert resume(run, tensors(0)) == 2


def test_a_full_disk_is_noticed_before_anything_is_written(run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**12, 10**12, 50))
    with pytest.raises(ConfigError, match=r"takes 9.6e-08 GB but the disk has 5e-08 GB left"):
        Checkpoints(run, 2, Ranks()).save(tensors(), 2)
    assert names(run / "checkpoints") == [STEP_1]


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "no file", "no step"])
def test_a_damaged_checkpoint_is_named_with_a_remedy(run, damage):
    (path,) = (run / "checkpoints" / STEP_1).iterdir()
    whole, kept = path.read_bytes(), load_file(path)
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[: len(whole) * 2 // 3])
        case "text":
            path.write_text("these are not the tensors you are looking for")
        case "no file":
            path.unlink()
        case "no step":
            save_file({name: t for name, t in kept.items() if name != "step"}, path)
    with pytest.raises(ConfigError, match=r"step-00000001: .*another --out folder"):
        resume(run, tensors())


def test_the_checkpoint_of_another_model_is_refused_by_the_tensor_that_differs(run):
    into = tensors(width=5)
    with pytest.raises(ConfigError, match=r"model \(0\.weight is \(4, 3\) instead of \(5, 3\)\)"):
        resume(run, into)
    assert torch.equal(into["model.0.weight"], tensors(width=5)["model.0.weight"])


def test_the_checkpoint_of_another_stage_is_refused(run):
    """It used to load, and the first update failed with a traceback."""
    into = tensors()
    into["optimizer.1.weight.exp_avg"] = into.pop("optimizer.0.weight.exp_avg")
    with pytest.raises(ConfigError, match="optimiser of another stage; use another --out"):
        resume(run, into)


def test_an_average_may_begin_or_end_between_two_runs(run):
    begun = {**tensors(0), "average.0.weight": torch.full((4, 3), 7.0)}
    step, absent = Checkpoints(run, 2, Ranks()).resume(begun)
    assert (step, absent) == (1, {"average.0.weight"})
    assert bool((begun["average.0.weight"] == 7).all())
    checkpoints = Checkpoints(run, 2, Ranks())
    checkpoints.save(begun, 2)
    checkpoints.finish()
    assert resume(run, tensors(0)) == 2


def test_the_checkpoint_of_an_older_version_is_not_passed_over(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="start from its model with --model"):
        resume(tmp_path, tensors())


def test_a_checkpoint_holds_no_pickle(run):
    (path,) = (run / "checkpoints" / STEP_1).iterdir()
    assert load_file(path).keys() == {*tensors(), "step"}


@pytest.mark.parametrize("place", ["write", "sync"])
def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, place, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_atomically({"x": torch.ones(2)}, path, {})
    before = path.read_bytes()

    def fail_after_writing(_tensors, path, metadata):
        path.write_bytes(b"half of a file")
        raise OSError(28, "No space left on device")

    if place == "write":
        monkeypatch.setattr(checkpoint, "save_file", fail_after_writing)
    else:
        monkeypatch.setattr(os, "fsync", fail_to_sync)
    with pytest.raises(ConfigError, match=r"x\.safetensors: cannot be written .*--out"):
        save_atomically({"x": torch.zeros(2)}, path, {})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["x.safetensors"]


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _file: synced.append(path.exists()))

    save_atomically({"x": torch.ones(2)}, path, {})

    assert synced == [False]
    assert torch.equal(load_file(path)["x"], torch.ones(2))


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="run/x: cannot be written"):
        save_atomically({}, tmp_path / "run" / "x", {})
