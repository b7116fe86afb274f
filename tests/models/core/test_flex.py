"""FlexAttention over all scales gives what one call per scale gives, and needs no dense mask."""

import pytest
import torch
from torch.nn.attention import flex_attention as flex_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nsarm_cli.models.core.attention import AttentionPass, scale_by_scale
from nsarm_cli.models.core.block import Modulation
from nsarm_cli.models.core.compiled import compile_blocks
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.flex import FlexAttention, block_causal_mask
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.nsarm.config import PRESETS

CPU = torch.device("cpu")
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def with_gradients(monkeypatch):
    """PyTorch refuses them on a processor, where its reference implementation still has them."""
    monkeypatch.setattr(flex_module, "_validate_device", lambda *_: None)
    torch._dynamo.reset()
    with torch.enable_grad():
        yield
    torch._dynamo.reset()


def asked(lengths, before=0):
    return AttentionPass(2, 3, 16, lengths, before, CPU, torch.float32)


def drawn(*tokens):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, 16, generator=generator, requires_grad=True) for n in tokens]


@pytest.mark.parametrize("lengths", [(1, 4, 9), (1, 36, 100, 200), (130,), (128, 128)])
def test_results_and_gradients_are_those_of_attention_scale_by_scale(lengths):
    total = sum(lengths)
    tensors = drawn(total, total, total)
    outputs = []
    for plan in (scale_by_scale, FlexAttention("eager")):
        result = plan(asked(lengths))(*tensors)
        gradients = torch.autograd.grad((result * torch.linspace(0, 1, 16)).sum(), tensors)
        outputs.append([result, *gradients])
    for ours, theirs in zip(*reversed(outputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)


VARSR = {"modulation": Modulation, "signal": torch.nn.Identity}


@pytest.mark.parametrize(("parts", "compiled"), [({}, False), (VARSR, False), (VARSR, True)])
def test_a_transformer_learns_the_same(parts, compiled, make_transformer, make_inputs):
    """Of both families: with a prefix in the first scale and without."""
    prefix = (2, 3) if parts else None
    schedule = ScaleSchedule(((1, 1), (2, 3), (4, 5)), 1, (8, 8), prefix=prefix)
    generator = torch.Generator().manual_seed(1)
    condition = Condition(torch.randn(2, 64, generator=generator))
    if prefix is not None:
        condition = Condition(condition.pooled, prefix=torch.randn(2, 6, 64, generator=generator))
    inputs = make_inputs(schedule)
    found = []
    for attention in (scale_by_scale, FlexAttention("eager")):
        transformer = make_transformer(scales=3, prefix=6 if parts else 0, **parts)
        transformer.plan_attention = attention
        if compiled and attention is not scale_by_scale:
            compile_blocks(transformer.blocks, "eager")
        transformer(inputs, schedule, condition).square().mean().backward()
        found.append({name: p.grad for name, p in transformer.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("lengths", [(1, 4, 9), (16,), (1, 15, 16, 40), (3, 8, 100, 7)])
def test_the_mask_is_the_one_that_pytorch_makes_of_a_dense_one(lengths):
    scales = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    total = sum(lengths)
    wanted = flex_module.create_block_mask(
        lambda b, h, query, key: scales[query] >= scales[key],
        *(None, None, total, total),
        device="cpu",
        BLOCK_SIZE=16,
    )
    found = block_causal_mask(lengths, CPU, block=16)
    assert found.shape == wanted.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        for part in ("num_blocks", "indices"):
            ours, theirs = (getattr(mask, f"{name}_{part}") for mask in (found, wanted))
            assert torch.equal(ours, theirs), f"{name}_{part}"
    assert torch.equal(found.to_dense(), wanted.to_dense())


class Largest(TorchDispatchMode):
    """Notes the numbers of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return out


def test_no_mask_of_all_tokens_by_all_tokens_is_made_for_the_8b_model():
    lengths = PRESETS["nsarm-8b"].schedule.lengths
    with Largest() as largest:
        block_causal_mask(lengths, CPU)
    assert sum(lengths) == 10_521
    assert largest.numbers <= 2 * sum(lengths)


def test_passes_with_a_cache_or_without_gradients_go_scale_by_scale():
    plan = FlexAttention("eager")
    assert plan(asked((4,), before=5)).func is scale_by_scale(asked((4,))).func
    with torch.no_grad():
        assert plan(asked((1, 4))).func is scale_by_scale(asked((1, 4))).func
    assert plan(asked((1, 4))).func is not scale_by_scale(asked((1, 4))).func
