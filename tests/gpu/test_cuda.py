"""What a CUDA GPU computes is what the processor computes. Skipped where there is none."""

import dataclasses
from functools import partial

import pytest
import torch

from nsarm_cli.acceleration import accelerate
from nsarm_cli.acceleration.graphs import CudaGraphs
from nsarm_cli.benchmark.families import build_subject
from nsarm_cli.memory.placement import Placement
from nsarm_cli.memory.quantize import multiplies_fp8, quantize_blocks
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.core.attention import AttentionPass, scale_by_scale
from nsarm_cli.models.core.flex import FlexAttention
from nsarm_cli.models.core.recorded import RecordedPasses
from nsarm_cli.models.interface import Sampling
from nsarm_cli.runtime import window_generator
from nsarm_cli.weights.families import load_resolver

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FP32 = torch.float32
WINDOWS = 3


@pytest.fixture(autouse=True)
def exact_float32():
    """Without TF32, whose ten bits of mantissa are another computation."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def windows():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(WINDOWS, 3, 8, 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(-1, 1)


def traced(resolver, windows, device):
    trace: dict[str, torch.Tensor] = {}
    generators = [window_generator(0, index) for index in range(len(windows))]
    sr = resolver.resolve(windows.to(device), generators, resolver.sampling, trace=trace)
    return trace | {"picture": sr.cpu()}


@pytest.fixture(scope="module")
def on_processor(windows):
    return traced(load_resolver("nsarm-nano", CPU, FP32), windows, CPU)


def share_equal(found, wanted, prefix):
    names = [name for name in wanted if name.startswith(prefix)]
    assert names
    same = sum(int((found[name] == wanted[name]).sum()) for name in names)
    return same / sum(wanted[name].numel() for name in names)


def test_bits_are_those_of_the_processor_but_for_ties(windows, on_processor):
    found = traced(load_resolver("nsarm-nano", CUDA, FP32), windows, CUDA)
    assert share_equal(found, on_processor, "bits.") > 0.9999
    assert (found["picture"] - on_processor["picture"]).abs().mean() < 1e-3


@pytest.mark.parametrize("dtype", [FP32, torch.bfloat16])
def test_compiled_logits_are_those_of_the_eager_model(windows, dtype):
    """In the first run, in the one that is recorded, and in one that is played."""
    eager = traced(load_resolver("nsarm-nano", CUDA, dtype), windows, CUDA)
    resolver = load_resolver("nsarm-nano", CUDA, dtype)
    accelerate(resolver, CUDA)
    for _ in range(3):
        compiled = traced(resolver, windows, CUDA)
        assert share_equal(compiled, eager, "bits.") > (0.9999 if dtype == FP32 else 0.98)


@pytest.mark.parametrize("dtype", [FP32, torch.bfloat16])
def test_graphs_give_the_bits_of_the_eager_model(windows, dtype, caplog):
    """The same kernels, given at once, for another picture in each run."""
    eager = load_resolver("nsarm-nano", CUDA, dtype)
    resolver = load_resolver("nsarm-nano", CUDA, dtype)
    RecordedPasses.install(resolver.transformer, partial(CudaGraphs, CUDA))
    for turn in range(4):
        shown = windows.roll(turn, dims=0).flip(turn % 2 + 2)
        found, wanted = traced(resolver, shown, CUDA), traced(eager, shown, CUDA)
        assert share_equal(found, wanted, "bits.") == 1
        assert (found["picture"] - wanted["picture"]).abs().max() < 1e-3
    assert caplog.records == []  # which would tell of a pass that was not recorded


def test_graphs_follow_weights_that_move(windows):
    plain = traced(load_resolver("nsarm-nano", CUDA, FP32), windows, CUDA)
    resolver = load_resolver("nsarm-nano", CUDA, FP32)
    RecordedPasses.install(resolver.transformer, partial(CudaGraphs, CUDA))
    placement = Placement(resolver, CUDA)
    for offload in (Offload.NONE, Offload.ALL, Offload.NONE):
        placement.apply(MemorySettings(FP32, batch=WINDOWS, offload=offload))
        for _ in range(3):
            assert share_equal(traced(resolver, windows, CUDA), plain, "bits.") == 1


def test_fp8_changes_few_bits(windows):
    pytest.importorskip("torchao", reason="needs the extra nsarm[quantize]")
    if not multiplies_fp8(CUDA, torch.bfloat16):
        pytest.skip("this GPU does not multiply in fp8")
    plain = traced(load_resolver("nsarm-nano", CUDA, torch.bfloat16), windows, CUDA)
    resolver = load_resolver("nsarm-nano", CUDA, torch.bfloat16)
    quantize_blocks(resolver.transformer.blocks, Quantize.FP8, CUDA)
    assert 0.8 < share_equal(traced(resolver, windows, CUDA), plain, "bits.") < 1


@pytest.mark.parametrize("lengths", [(1, 4, 16, 36, 100), (130, 400, 7)])
def test_flexattention_learns_what_attention_scale_by_scale_learns(lengths):
    asked = AttentionPass(2, 4, 32, lengths, 0, CUDA, FP32)
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, sum(lengths), 32)
    tensors = [torch.randn(shape, generator=generator).to(CUDA).requires_grad_() for _ in range(3)]
    weights = torch.randn(shape, generator=generator).to(CUDA)
    outputs = []
    for plan in (FlexAttention(), scale_by_scale):
        result = plan(asked)(*tensors)
        outputs.append([result, *torch.autograd.grad((result * weights).sum(), tensors)])
    for ours, theirs in zip(*outputs, strict=True):
        assert (ours - theirs).abs().max() < 2e-3 * theirs.abs().max()


def test_a_window_does_not_depend_on_its_batch(windows):
    resolver = load_resolver("nsarm-nano", CUDA, FP32)
    together = traced(resolver, windows, CUDA)
    alone = traced(resolver, windows[:1], CUDA)
    assert share_equal(alone, together, "bits.") > 0.9999


@pytest.mark.parametrize("offload", list(Offload))
def test_offloading_changes_nothing(windows, offload):
    plain = traced(load_resolver("nsarm-nano", CUDA, FP32), windows, CUDA)
    resolver = load_resolver("nsarm-nano", CPU, FP32)
    Placement(resolver, CUDA).apply(MemorySettings(FP32, batch=WINDOWS, offload=offload))
    found = traced(resolver, windows, CUDA)
    assert torch.equal(found["picture"], plain["picture"])


@pytest.mark.parametrize(("model", "compiled"), [("wide", False), ("nsarm-nano", True)])
def test_nothing_in_the_loop_over_scales_waits_for_the_gpu(model, compiled):
    subject = build_subject(model, CUDA, torch.bfloat16)
    if compiled:
        accelerate(subject.resolver, CUDA)
    side = subject.resolver.window
    lr = torch.zeros(1, 3, side, side, device=CUDA)
    sampling = dataclasses.replace(subject.resolver.sampling, temperature=1.0)
    assert isinstance(sampling, Sampling)
    for seed in range(3):
        subject.run(lr, [window_generator(seed, 0)], lambda: None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        subject.run(lr, [window_generator(0, 1)], lambda: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
