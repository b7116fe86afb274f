"""Recomputing and compiling change memory and speed, and not what is learned."""

import collections
import copy
import dataclasses

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.attention import scale_by_scale
from nsarm_cli.models.core.flex import FlexAttention
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import BranchConfig, TransformationConfig
from nsarm_cli.training.config import Stage1Config, Stage2Config, TokenizerConfig
from nsarm_cli.training.economy import choose_attention, economise, let_caches_wait
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.runner import build_stage

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMMON = {"steps": 2, "batch": 2, "crop": 64, "precision": "fp32"}
CONFIGS = {
    "tokenizer": TokenizerConfig(**COMMON),
    "stage1": Stage1Config(**COMMON),
    "stage2": Stage2Config(**COMMON),
}


def gradients(model, config, batch, **options):
    """Loss, gradients and bytes kept for the backward pass of one step of a copy."""
    model = copy.deepcopy(model)
    stage = build_stage(config, model, CPU)
    economise(stage.trained, options.pop("recompute", "none"), compiled=False, **options)
    stage.trained.train()
    kept: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss, _ = stage.loss(batch, 0)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found, sum(kept.values())


def with_dropout(config):
    branches = tuple(BranchConfig(side, 16, 1, 2) for side in (2, 4))
    transformation = TransformationConfig(8, 16, (8, 8), branches)
    return dataclasses.replace(config, transformation=transformation)


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_gives_the_same_gradients_to_the_bit(
    name, recompute, micro, micro_config, batch
):
    model = initialise(NsarmModel(with_dropout(micro_config))) if name == "stage1" else micro
    loss, wanted, _ = gradients(model, CONFIGS[name], batch)
    other, found, _ = gradients(model, CONFIGS[name], batch, recompute=recompute)
    assert other == loss
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


def test_recomputing_everything_keeps_less(micro_config, batch):
    transformer = dataclasses.replace(micro_config.transformer, depth=6)
    model = initialise(NsarmModel(dataclasses.replace(micro_config, transformer=transformer)))
    none, full = (
        gradients(model, CONFIGS["stage2"], batch, recompute=recompute)[2]
        for recompute in ("none", "full")
    )
    assert full < 0.5 * none


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("recompute", "dear", "cheap"), [("none", 0, 0), ("selective", 0, 2), ("full", 2, 2)]
)
def test_selective_computes_only_what_is_cheap_again(recompute, dear, cheap, micro, batch):
    """In the backward pass, of two blocks; attention and GELU stand for the dear and the cheap."""
    stage = build_stage(CONFIGS["stage2"], micro, CPU)
    economise(stage.trained, recompute, compiled=False)
    loss, _ = stage.loss(batch, 0)
    with Counted() as counted:
        loss.backward()
    attention = counted.counts["_scaled_dot_product_flash_attention_for_cpu"]
    assert attention == dear * len(micro.config.sides)
    assert counted.counts["gelu"] == cheap


def test_names_of_parameters_stay(micro):
    before = list(micro.state_dict())
    economise(micro.transformer, "full", compiled=True)
    assert list(micro.state_dict()) == before


def test_compiled_blocks_are_compiled_once_and_learn_the_same(micro_config, batch, tmp_path):
    transformer = dataclasses.replace(micro_config.transformer, depth=3, cross=True)
    config = dataclasses.replace(micro_config, text_width=128, transformer=transformer)
    model = initialise(NsarmModel(config))
    _, wanted, _ = gradients(model, CONFIGS["stage2"], batch)

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    stage = build_stage(CONFIGS["stage2"], model, CPU)
    economise(stage.trained, "full", compiled=True, backend=counter)
    stage.loss(batch, 0)[0].backward()
    assert counter.frame_count == 1
    for name, parameter in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)
    with torch.no_grad():  # validation samples with a cache, which is not compiled
        stage.validate([batch], tmp_path / "x.png")
    assert counter.frame_count == 1


def test_a_cache_that_waits_elsewhere_changes_no_validation(micro, batch, tmp_path):
    stage = build_stage(CONFIGS["stage2"], micro.eval(), CPU)
    with torch.no_grad():
        here = stage.validate([batch], tmp_path / "here.png")
        let_caches_wait(stage.module)
        assert micro.transformer.cache_home == CPU
        there = stage.validate([batch], tmp_path / "there.png")
    assert here == there
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_compiling_and_choosing_what_to_keep_exclude_each_other():
    with pytest.raises(ConfigError, match='recompute is "selective" and compile is on'):
        Stage2Config(compile=True, recompute="selective")


def test_so_do_flexattention_and_choosing_what_to_keep():
    with pytest.raises(ConfigError, match='recompute is "selective" and attention is "flex"'):
        Stage2Config(attention="flex", recompute="selective")


def test_the_settings_choose_the_attention_of_training(micro):
    stage = build_stage(CONFIGS["stage2"], micro, CPU)
    choose_attention(stage.trained, "sdpa", CPU)
    assert micro.transformer.plan_attention is scale_by_scale
    choose_attention(stage.trained, "flex", CUDA)
    assert isinstance(micro.transformer.plan_attention, FlexAttention)


def test_flexattention_is_refused_where_it_cannot_learn(micro, micro_config):
    stage = build_stage(CONFIGS["stage2"], micro, CPU)
    with pytest.raises(ConfigError, match='set attention = "sdpa", or train with --device cuda'):
        choose_attention(stage.trained, "flex", CPU)
    with pytest.raises(ConfigError, match="this stage trains no transformer"):
        choose_attention(build_stage(CONFIGS["stage1"], micro, CPU).trained, "flex", CUDA)
    narrow = dataclasses.replace(micro_config.transformer, heads=4)
    model = initialise(NsarmModel(dataclasses.replace(micro_config, transformer=narrow)))
    with pytest.raises(ConfigError, match="heads are 8 numbers wide and FlexAttention takes 16"):
        choose_attention(model, "flex", CUDA)


def test_a_run_that_cannot_use_flexattention_ends_with_a_sentence(
    nsarm_train, write_settings, photos, tmp_path
):
    settings, out = write_settings(attention="flex"), tmp_path / "out"
    done = nsarm_train("stage2", "--data", photos, "--config", settings, "--out", out)
    assert done.code == 6
    assert "FlexAttention learns on CUDA GPUs alone" in done.err
    assert not out.exists()
