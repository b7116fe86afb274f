"""A step on tensors without numbers counts what a step computes and keeps."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nsarm_cli.models.nsarm.config import NSARM_NANO
from nsarm_cli.training.config import (
    DecoderConfig,
    PriorConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.rehearsal import meta_stage, rehearse
from nsarm_cli.training.runner import build_stage

STAGES = {
    "tokenizer": TokenizerConfig(crop=64, precision="fp32"),
    "prior": PriorConfig(crop=64, precision="fp32"),
    "stage1": Stage1Config(crop=64, precision="fp32"),
    "stage2": Stage2Config(crop=64, precision="fp32", flip=0.0),
    "decoder": DecoderConfig(crop=64, precision="fp32", adversarial=0.5),
}


def count(config, model, samples=2, **options):
    return rehearse(meta_stage(config, model, build_stage), config, model, samples, **options)


@pytest.mark.parametrize("name", STAGES)
def test_it_counts_the_operations_of_the_real_step(name, micro, batch):
    config = STAGES[name]
    stage = build_stage(config, micro, torch.device("cpu"))
    stage.module.eval()
    stage.trained.train()
    before = {key: value.clone() for key, value in micro.state_dict().items()}

    found = count(config, micro.config)

    if name != "decoder":  # its sampling is in inference mode, which the counter cannot follow
        with FlopCounterMode(display=False) as counter:
            stage.loss(batch, 0)[0].backward()
        assert found.flops == counter.get_total_flops() > 0
    assert all(torch.equal(value, before[key]) for key, value in micro.state_dict().items())
    assert found.peak >= found.kept > 0


def test_a_model_with_text_is_rehearsed_under_its_unconditional_caption(micro_config):
    transformer = dataclasses.replace(micro_config.transformer, cross=True)
    model = dataclasses.replace(micro_config, text_width=128, transformer=transformer)
    assert count(STAGES["stage2"], model).flops > count(STAGES["stage2"], micro_config).flops


def test_operations_and_memory_grow_with_the_samples(micro_config):
    config = STAGES["stage2"]
    one, two, three = (count(config, micro_config, samples) for samples in (1, 2, 3))
    assert three.flops == pytest.approx(3 * one.flops, rel=0.01)
    assert three.kept - two.kept == pytest.approx(two.kept - one.kept, rel=0.01)
    assert three.peak > two.peak > one.peak


def test_what_is_computed_again_is_not_kept_and_costs_operations(micro_config):
    transformer = dataclasses.replace(micro_config.transformer, depth=6)
    model = dataclasses.replace(micro_config, transformer=transformer)
    none, selective, full = (
        count(STAGES["stage2"], model, recompute=policy) for policy in ("none", "selective", "full")
    )
    assert none.kept > selective.kept > full.kept
    assert none.peak > selective.peak > full.peak
    assert none.flops == selective.flops < full.flops


def test_blocks_keep_what_the_arithmetic_says():
    """With everything recomputed, a block more keeps its float32 input and nothing else."""
    kept = []
    for depth in (2, 3):
        transformer = dataclasses.replace(NSARM_NANO.transformer, depth=depth)
        model = dataclasses.replace(NSARM_NANO, transformer=transformer)
        config = Stage2Config(crop=256, precision="fp32")
        kept.append(count(config, model, 2, recompute="full").kept)
    tokens, width = NSARM_NANO.schedule.total, NSARM_NANO.transformer.width
    assert kept[1] - kept[0] == pytest.approx(2 * tokens * width * 4, rel=0.05)
