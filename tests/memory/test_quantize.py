"""Block matrices in fewer bits: what is touched, what is not, and what cannot be done here."""

import logging
from contextlib import nullcontext

import pytest
import torch

pytest.importorskip("torchao", reason="needs the extra nsarm[quantize]")

from nsarm_cli.errors import DeviceError
from nsarm_cli.memory.device import DeviceMemory
from nsarm_cli.memory.estimate import estimate
from nsarm_cli.memory.planner import Wishes
from nsarm_cli.memory.quantize import _without_remarks, obstacle, quantize_blocks, usable
from nsarm_cli.memory.session import Session
from nsarm_cli.memory.settings import MemorySettings, Quantize
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.config import NSARM_NANO
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.weights.families import load_resolver

CPU = torch.device("cpu")


@pytest.fixture
def nano() -> NsarmResolver:
    return load_resolver("nsarm-nano", CPU, torch.float32)


def run(resolver):
    lr = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trace = {}
    with torch.inference_mode():
        resolver.resolve(lr, [torch.Generator()], Sampling(temperature=0), trace=trace)
    return trace


@pytest.mark.parametrize(("kind", "most"), [(Quantize.INT8, 0.02), (Quantize.FP8, 0.1)])
def test_nano_runs_quantised_on_a_processor_and_changes_few_bits(nano, kind, most):
    before = run(nano)
    quantize_blocks(nano.transformer.blocks, kind, CPU)
    after = run(nano)
    assert torch.equal(before["bits.5"], after["bits.5"])  # not of the transformer
    changed = (before["bits.6"] != after["bits.6"]).float().mean().item()
    assert 0 < changed < most
    assert not torch.equal(before["logits.6"], after["logits.6"])


def test_only_block_matrices_are_quantised(nano):
    names = {n: type(p.data) for n, p in nano.model.named_parameters()}
    quantize_blocks(nano.transformer.blocks, Quantize.INT8, CPU)
    changed = {n for n, p in nano.model.named_parameters() if type(p.data) is not names[n]}
    assert changed
    assert all(n.startswith("transformer.blocks.") and n.endswith("weight") for n in changed)


def test_the_estimate_of_int8_is_the_size_of_what_is_stored(nano):
    quantize_blocks(nano.transformer.blocks, Quantize.INT8, CPU)
    stored = 0
    for parameter in nano.model.parameters():
        parts = getattr(parameter, "tensor_data_names", None)
        if parts is None:
            stored += parameter.nbytes
        else:
            stored += sum(getattr(parameter, p).nbytes for p in (*parts, "zero_point"))
    settings = MemorySettings(torch.float32, quantize=Quantize.INT8)
    weights = estimate(memory_needs(NSARM_NANO), settings).moments[0].weights
    assert weights == pytest.approx(stored, rel=0.001)


def test_int4_needs_a_gpu_and_says_so(nano):
    with pytest.raises(DeviceError, match=r"int4 does not work here: .* on a CUDA GPU alone"):
        quantize_blocks(nano.transformer.blocks, Quantize.INT4, CPU)
    assert obstacle(Quantize.INT4, torch.device("cuda"), torch.bfloat16) is None
    assert obstacle(Quantize.INT8, torch.device("mps"), torch.bfloat16) is not None


def test_int4_asks_the_gpu_of_the_run(monkeypatch):
    capabilities = {0: (8, 6), 1: (7, 5)}
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[device.index]
    )
    assert obstacle(Quantize.INT4, torch.device("cuda", 0), torch.bfloat16) is None
    assert "since Ampere" in obstacle(Quantize.INT4, torch.device("cuda", 1), torch.bfloat16)


@pytest.mark.parametrize(
    ("capability", "dtype", "rowwise"),
    [
        ((9, 0), torch.bfloat16, True),
        ((8, 9), torch.bfloat16, True),
        ((8, 0), torch.bfloat16, False),
        ((9, 0), torch.float32, False),
    ],
)
def test_products_are_fp8_where_a_gpu_multiplies_in_it(monkeypatch, capability, dtype, rowwise):
    from torchao import quantization

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    chosen = []
    monkeypatch.setattr(quantization, "quantize_", lambda _, config, **__: chosen.append(config))
    block = torch.nn.Sequential(torch.nn.Linear(16, 16, dtype=dtype))
    monkeypatch.setattr(block, "to", lambda _: block)
    quantize_blocks([block], Quantize.FP8, torch.device("cuda"))
    (config,) = chosen
    if rowwise:
        assert isinstance(config, quantization.Float8DynamicActivationFloat8WeightConfig)
        assert config.granularity == [quantization.PerRow(), quantization.PerRow()]
        assert not config.set_inductor_config
    else:
        assert isinstance(config, quantization.Float8WeightOnlyConfig)


def test_without_torchao_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setattr("nsarm_cli.memory.quantize.find_spec", lambda _: None)
    assert "pip install 'nsarm[quantize]'" in obstacle(Quantize.INT8, CPU, torch.float32)
    assert obstacle(Quantize.NONE, CPU, torch.float32) is None


def test_only_what_works_here_is_chosen_unasked(monkeypatch):
    cuda = torch.device("cuda")
    assert usable(CPU, torch.bfloat16) == (Quantize.NONE, Quantize.INT8)
    assert usable(cuda, torch.bfloat16) == (Quantize.NONE, Quantize.INT8, Quantize.INT4)
    assert usable(cuda, torch.float16) == (Quantize.NONE, Quantize.INT8)
    monkeypatch.setattr("nsarm_cli.memory.quantize.find_spec", lambda _: None)
    assert usable(cuda, torch.bfloat16) == (Quantize.NONE,)
    crowded = DeviceMemory(2**20, 2**20, host=2**40, separate=False)
    session = Session.prepare("nsarm-nano", CPU, Wishes(torch.float32), crowded)
    assert not session.plan.fits
    assert session.plan.settings.quantize is Quantize.NONE


def test_what_torchao_says_of_other_machines_is_kept_back(caplog):
    logger = logging.getLogger("torchao")
    with _without_remarks():
        logger.warning("Failed to load a library for another card")
    logger.warning("something about this run")
    assert [record.getMessage() for record in caplog.records] == ["something about this run"]
