"""Tensors go into a module only if they are exactly its own."""

import pytest
import torch
from torch import nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.strict import check_tensors, load_strictly


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2), "1.weight": torch.ones(4, 2)}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False))


def message(tensors) -> str:
    module = build()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_strictly(module, tensors, "x.safetensors")
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    return str(error.value)


def test_tensors_take_the_places_of_parameters_without_a_copy(tensors):
    with torch.device("meta"):
        module = build()
    load_strictly(module, tensors, "x.safetensors")
    assert module[0].weight.data_ptr() == tensors["0.weight"].data_ptr()
    assert module[0].weight.requires_grad
    assert module(torch.ones(1, 3)).tolist() == [[6.0] * 4]


def test_a_missing_tensor_is_named(tensors):
    del tensors["0.bias"]
    assert message(tensors) == (
        "x.safetensors: tensors do not belong to this model (missing: 0.bias); "
        "use the configuration the weights were made with"
    )


def test_an_unknown_tensor_is_named(tensors):
    assert "(unknown: 2.weight)" in message(tensors | {"2.weight": torch.ones(1)})


def test_a_misshapen_tensor_is_named_with_both_shapes(tensors):
    wrong = message(tensors | {"1.weight": torch.ones(2, 4)})
    assert "(misshapen: 1.weight is (2, 4) instead of (4, 2))" in wrong


def test_a_shape_that_would_broadcast_is_still_wrong(tensors):
    assert "misshapen: 0.bias is (1,)" in message(tensors | {"0.bias": torch.zeros(1)})


def test_all_kinds_of_faults_come_in_one_sentence(tensors):
    del tensors["0.bias"]
    tensors |= {"0.weight": torch.ones(3), "more": torch.ones(1)}
    wrong = "(missing: 0.bias; unknown: more; misshapen: 0.weight is (3,) instead of (2, 3))"
    assert wrong in message(tensors)


def test_many_faults_are_counted():
    with pytest.raises(WeightsError, match=r"missing: a0, a1, a2 and 5 more\)"):
        check_tensors({f"a{i}": (1,) for i in range(8)}, {}, "x")
