"""What a CUDA GPU computes is what the processor computes. Skipped where there is none."""

import dataclasses

import pytest
import torch

from nsarm_cli.acceleration import accelerate
from nsarm_cli.benchmark.families import build_subject
from nsarm_cli.memory.placement import Placement
from nsarm_cli.memory.settings import MemorySettings, Offload
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
    eager = traced(load_resolver("nsarm-nano", CUDA, dtype), windows, CUDA)
    resolver = load_resolver("nsarm-nano", CUDA, dtype)
    accelerate(resolver, CUDA)
    compiled = traced(resolver, windows, CUDA)
    assert share_equal(compiled, eager, "bits.") > (0.9999 if dtype == FP32 else 0.98)


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


def test_nothing_in_the_loop_over_scales_waits_for_the_gpu():
    subject = build_subject("wide", CUDA, torch.bfloat16)
    side = subject.resolver.window
    lr = torch.zeros(1, 3, side, side, device=CUDA)
    sampling = dataclasses.replace(subject.resolver.sampling, temperature=1.0)
    assert isinstance(sampling, Sampling)
    subject.run(lr, [window_generator(0, 0)], lambda: None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        subject.run(lr, [window_generator(0, 1)], lambda: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
