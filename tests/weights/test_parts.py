"""A part of one model folder goes into another model, whole or not at all."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.parts import load_part


@pytest.fixture
def folder(tmp_path):
    tensors = {"head.weight": torch.full((2, 3), 4.0), "head.bias": torch.ones(2)}
    save_file(tensors | {"tail.weight": torch.zeros(5)}, tmp_path / "model.safetensors")
    return tmp_path


def test_only_the_part_is_taken(folder):
    part = nn.Linear(3, 2)
    load_part(part, folder, "head")
    assert torch.equal(part.weight, torch.full((2, 3), 4.0))
    assert torch.equal(part.bias, torch.ones(2))


def test_a_part_may_lie_in_several_files_and_keeps_the_modules_type(folder):
    (folder / "model.safetensors").unlink()
    whole = {"head.weight": torch.full((2, 3), 4.0, dtype=torch.bfloat16)}
    save_file(whole, folder / "model-00001-of-00002.safetensors")
    save_file({"head.bias": torch.ones(2)}, folder / "model-00002-of-00002.safetensors")
    part = nn.Linear(3, 2)
    load_part(part, folder, "head")
    assert part.weight.dtype == torch.float32
    assert torch.equal(part.weight, torch.full((2, 3), 4.0))


def test_a_part_of_another_shape_changes_nothing(folder):
    part = nn.Linear(4, 2)
    before = part.weight.clone()
    with pytest.raises(WeightsError, match=r"head: tensors do not belong.*misshapen: weight"):
        load_part(part, folder, "head")
    assert torch.equal(part.weight, before)


def test_a_part_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(WeightsError, match=r"middle: tensors do not belong.*missing: weight, bias"):
        load_part(nn.Linear(3, 2), folder, "middle")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty: has no model\.safetensors to take head from"):
        load_part(nn.Linear(3, 2), tmp_path / "empty", "head")


def test_a_damaged_file_is_named(folder):
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_part(nn.Linear(3, 2), folder, "head")
