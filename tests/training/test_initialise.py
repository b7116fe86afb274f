"""Fresh weights start a run well whatever the depth."""

import dataclasses

import pytest
import torch

from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.initialise import initialise


def hidden_of(config, depth):
    transformer = dataclasses.replace(config.transformer, depth=depth)
    model = initialise(NsarmModel(dataclasses.replace(config, transformer=transformer)))
    schedule = config.schedule
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, n, 32, generator=generator) for n in schedule.lengths[1:]]
    prepared = model.transformer.prepare(Condition(model.conditioner(2).pooled))
    rope = model.transformer.rope(schedule, torch.device("cpu"))
    hidden = model.transformer.hidden(inputs, 0, schedule, rope, prepared)
    return hidden, model.transformer.logits(hidden, prepared)


def test_nothing_is_left_at_zero_but_biases(micro):
    zeros = {name for name, p in micro.named_parameters() if not p.any()}
    assert all(name.endswith("bias") for name in zeros)


def test_a_deep_model_starts_as_calm_as_a_shallow_one(micro_config):
    torch.manual_seed(0)
    with torch.no_grad():
        shallow, deep = (hidden_of(micro_config, depth)[0].std() for depth in (1, 16))
    assert float(deep) < 3 * float(shallow)


def test_logits_start_near_zero_so_that_every_bit_is_open(micro_config):
    torch.manual_seed(0)
    with torch.no_grad():
        assert float(hidden_of(micro_config, 2)[1].abs().max()) < 0.3


def test_every_block_receives_a_gradient_at_the_first_step(micro_config):
    torch.manual_seed(0)
    model = initialise(NsarmModel(micro_config))
    schedule = micro_config.schedule
    inputs = [torch.randn(1, n, 32) for n in schedule.lengths[1:]]
    logits = model.transformer(inputs, schedule, model.conditioner(1))
    logits.square().sum().backward()
    still = [
        name
        for name, parameter in model.transformer.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert still == []


def test_the_same_seed_gives_the_same_weights(micro_config):
    models = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        models.append(initialise(NsarmModel(micro_config)).state_dict())
    one, same, other = models
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", ["transformer.blocks.0.attention.qkv.weight"])
def test_matrices_have_the_spread_that_their_width_asks_for(micro, name):
    weight = micro.state_dict()[name]
    assert float(weight.std()) == pytest.approx((1 / (3 * 32)) ** 0.5, rel=0.05)
