"""Checkpoints are whole or not there, and only continue the run that they belong to."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.training import checkpoint
from nsarm_cli.training.checkpoint import load_checkpoint, save_atomically, save_checkpoint


def build(width: int = 4) -> tuple[nn.Module, torch.optim.AdamW]:
    module = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def step(module, optimizer):
    module(torch.rand(5, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def saved(tmp_path):
    """A run after one step: its file, module and optimiser."""
    module, optimizer = build()
    step(module, optimizer)
    path = tmp_path / "run" / "checkpoint.safetensors"
    save_checkpoint(path, module, optimizer, 1)
    return path, module, optimizer


def test_loading_restores_weights_moments_step_and_random_numbers(saved):
    path, module, optimizer = saved
    step(module, optimizer)
    other, other_optimizer = build()
    torch.rand(7)

    assert load_checkpoint(path, other, other_optimizer) == 1
    step(other, other_optimizer)

    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def fail_after_writing(tensors, path, metadata):
    path.write_bytes(b"half of a file")
    raise OSError(28, "No space left on device")


def fail_to_sync(_file):
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("place", ["write", "sync"])
def test_a_failure_while_writing_keeps_the_old_file_and_leaves_no_other(saved, place, monkeypatch):
    path, module, optimizer = saved
    before = path.read_bytes()
    if place == "write":
        monkeypatch.setattr(checkpoint, "save_file", fail_after_writing)
    else:
        monkeypatch.setattr(os, "fsync", fail_to_sync)

    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: cannot be written .*--out"):
        save_checkpoint(path, module, optimizer, 2)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupt_while_writing_keeps_the_old_file_and_leaves_no_other(saved, monkeypatch):
    def interrupt(_tensors, path, metadata):
        path.write_bytes(b"half of a file")
        raise KeyboardInterrupt

    path, module, optimizer = saved
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", interrupt)

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, module, optimizer, 2)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


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


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "no step", "no generator", "folder"])
def test_a_damaged_checkpoint_is_named_with_a_remedy(saved, damage):
    path, module, optimizer = saved
    whole = path.read_bytes()
    tensors = load_file(path)
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[: len(whole) * 2 // 3])
        case "text":
            path.write_text("these are not the tensors you are looking for")
        case "no step":
            save_file(tensors, path)
        case "no generator":
            del tensors["generator.cpu"]
            save_file(tensors, path, {"step": "1"})
        case "folder":
            path.mkdir()

    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: is damaged .*; remove it or"):
        load_checkpoint(path, module, optimizer)


def test_the_checkpoint_of_another_model_is_refused_by_the_tensor_that_differs(saved):
    path, _, _ = saved
    module, optimizer = build(width=5)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    with pytest.raises(ConfigError, match=r"misshapen: 0\.weight is \(4, 3\) instead of \(5, 3\)"):
        load_checkpoint(path, module, optimizer)

    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_the_checkpoint_of_another_stage_is_refused(saved):
    """It used to load, and the first update failed with a traceback."""
    path, module, _ = saved
    for part in (module[1], nn.Sequential(module[1], module[0])):
        with pytest.raises(ConfigError, match="optimiser of another stage; use another --out"):
            load_checkpoint(path, module, torch.optim.AdamW(part.parameters()))


def test_a_checkpoint_holds_no_pickle(saved):
    path, _, _ = saved
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"step": "1"}
        assert sorted({name.split(".")[0] for name in file.keys()}) == [  # noqa: SIM118
            "generator",
            "model",
            "optimizer",
        ]
