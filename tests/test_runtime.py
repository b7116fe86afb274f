"""Devices and precisions come with a reason; seeds give independent, repeatable streams."""

import platform
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from nsarm_cli.errors import DeviceError
from nsarm_cli.runtime import PRECISIONS, choose_device, choose_dtype, window_generator

CPU = torch.device("cpu")


def draws(seed: int, index: int) -> torch.Tensor:
    return torch.rand(8, generator=window_generator(seed, index))


def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_takes_the_processor_where_there_is_no_gpu(monkeypatch):
    without_gpu(monkeypatch)
    assert choose_device("auto") == (CPU, "found no GPU that PyTorch can use")


def test_auto_takes_the_first_cuda_gpu_and_names_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert choose_device("auto") == (torch.device("cuda", 0), "found Some GPU")


def test_a_cuda_gpu_is_taken_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1")[0] == torch.device("cuda", 1)
    assert choose_device("cuda")[0] == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match="'cuda:2' does not exist: PyTorch finds 2 CUDA GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_an_absent_gpu_is_an_error_that_names_the_remedy(monkeypatch, name):
    without_gpu(monkeypatch)
    with pytest.raises(DeviceError, match=r"does not exist.*--device cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["toaster", "", "cuda:x", "cuda:-1", "meta", "xpu", "cpu:cpu"])
def test_an_unknown_device_is_an_error_that_lists_the_known(name):
    with pytest.raises(DeviceError, match=f"'{name}' is unknown: choose auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", PRECISIONS)
def test_an_explicit_precision_is_obeyed(name):
    dtype, why = choose_dtype(name, CPU)
    assert dtype is PRECISIONS[name]
    assert why.startswith("as asked")


def test_an_unknown_precision_is_an_error_that_lists_the_known():
    with pytest.raises(DeviceError, match="'int3' is unknown: choose auto, bf16, fp16, fp32"):
        choose_dtype("int3", CPU)


def test_fp16_on_a_processor_without_it_is_told_to_be_slow(monkeypatch):
    for features, slow in (
        ({"sse2": True, "avx512_fp16": False}, True),
        ({"sse2": True, "avx512_fp16": True}, False),
        ({"neon": True}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda f=features: f, raising=False)
        dtype, why = choose_dtype("fp16", torch.device("cpu"))
        assert dtype is torch.float16
        assert ("fp32 is much faster" in why) is slow


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_on_a_processor_takes_bf16_only_where_it_is_native(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose_dtype("auto", CPU)[0] is expected


def test_an_old_pytorch_asks_linux_for_the_features(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr("nsarm_cli.runtime.Path", lambda _: info)
    assert choose_dtype("auto", CPU)[0] is torch.float32
    info.write_text("flags\t: avx2 avx512f\n")
    assert choose_dtype("auto", CPU)[0] is torch.float32
    info.write_text("flags\t: avx2 avx512_bf16\n")
    assert choose_dtype("auto", CPU)[0] is torch.bfloat16


def test_auto_on_a_gpu_follows_the_hardware_of_that_gpu(monkeypatch):
    """PyTorch tells of the current GPU alone; here the second one has bf16."""
    current = [0]

    @contextmanager
    def at(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", at)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current[-1] == 1)
    assert choose_dtype("auto", torch.device("cuda", 1))[0] is torch.bfloat16
    assert choose_dtype("auto", torch.device("cuda", 0))[0] is torch.float32
    assert choose_dtype("auto", torch.device("mps"))[0] is torch.float32


def test_a_seed_and_a_window_give_the_same_stream_every_time():
    assert torch.equal(draws(3, 5), draws(3, 5))


def test_other_seeds_and_windows_give_other_streams():
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 11), (11, 1), (2**70, 0)]
    streams = {tuple(draws(*pair).tolist()) for pair in pairs}
    assert len(streams) == len(pairs)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    draws(1, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


_FREE = """
import sys, torch
from pathlib import Path
from nsarm_cli.runtime import keep_freed_memory
def resident():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
for _ in range(3):
    torch.ones(2**25).add_(1)  # 128 MiB
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_freed_memory_is_kept_where_that_is_asked_for_and_not_otherwise():
    left = {}
    for how in ("keep", "give back"):
        command = [sys.executable, "-c", _FREE, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        left[how] = float(done.stdout)
    assert left["keep"] > 120
    assert left["give back"] < 60
