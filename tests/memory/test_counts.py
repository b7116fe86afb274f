"""The counted activations are those of the code that runs."""

import dataclasses
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nsarm_cli.benchmark.families import META, build_subject
from nsarm_cli.memory.estimate import estimate
from nsarm_cli.memory.settings import MemorySettings
from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.models.varsr.config import VARSR
from nsarm_cli.models.varsr.memory import memory_needs as varsr_needs
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.model import cast_for_inference as cast_varsr
from nsarm_cli.models.varsr.resolver import VarsrResolver

TOLERANCE = 0.25
"""Small tensors beside the large ones, and sampling, are not in the sums."""


class Alive(TorchDispatchMode):
    """The most bytes of tensors, made while it is active, that lived at once."""

    def __init__(self, known):
        super().__init__()
        self._known = list(known)
        self._sizes = {t.untyped_storage()._cdata: 0 for t in self._known}
        self._now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device == META:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._drop, storage._cdata)
        self.peak = max(self.peak, self._now)
        return out

    def _drop(self, key):
        self._now -= self._sizes.pop(key)


class Fused(TorchFunctionMode):
    """Attention as on a device, which keeps no scores; the meta device would make them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_estimate_is_near_what_is_alive_in_a_run_of_nano(dtype, batch):
    subject = build_subject("nsarm-nano", META, dtype)
    resolver, model = subject.resolver, subject.model
    lr = torch.empty(batch, 3, resolver.window, resolver.window, device=META)
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    result = estimate(memory_needs(PRESETS["nsarm-nano"]), MemorySettings(dtype, batch))
    weights = sum(p.nbytes for p in model.parameters())
    assert result.moments[0].weights == weights
    with torch.no_grad(), Fused(), Alive(model.parameters()) as alive:
        resolver.resolve_together(lr, generators, resolver.sampling)
    assert result.peak - weights == pytest.approx(alive.peak, rel=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_estimate_is_near_what_is_alive_in_a_run_of_varsr(batch):
    """Windows and the decoder apart: the published shape with fewer blocks."""
    blocks = dataclasses.replace(VARSR.transformer, depth=3)
    config = dataclasses.replace(VARSR, transformer=blocks, name="short")
    with torch.device("meta"):
        model = cast_varsr(VarsrModel(config), torch.bfloat16)
    resolver = VarsrResolver(model.requires_grad_(requires_grad=False).eval())
    settings = MemorySettings(torch.bfloat16, batch)
    result = estimate(varsr_needs(config), settings, guided=True)
    assert result.moments[0].weights == sum(p.nbytes for p in model.parameters())
    lr = torch.empty(batch, 3, config.window, config.window, device=META)
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    with torch.no_grad(), Fused(), Alive(model.parameters()) as alive:
        resolver.features(lr, generators, resolver.sampling)
    *windows, decode = result.moments
    assert max(m.total - m.weights for m in windows) == pytest.approx(alive.peak, rel=TOLERANCE)
    feature = torch.empty(1, config.tokenizer.channels, 64, 64, device=META)
    with torch.no_grad(), Fused(), Alive(model.parameters()) as alive:
        resolver.decode(feature)
    assert decode.total - decode.weights == pytest.approx(alive.peak, rel=0.02)
    assert result.fullest is decode


def test_the_decoder_of_the_published_model_is_counted_exactly():
    config = dataclasses.replace(PRESETS["tiny"], name="decoder")  # its autoencoder is full-size
    needs = memory_needs(config)
    subject = build_subject("tiny", META, torch.bfloat16)
    side = config.schedule.latents[-1][0]
    feature = torch.empty(1, config.autoencoder.channels, side, side, device=META)
    with torch.no_grad(), Alive(subject.model.parameters()) as alive:
        subject.model.decode(feature)
    (decode,) = (m for m in needs.moments if m.name == "decode")
    assert 2 * decode.plain == pytest.approx(alive.peak, rel=0.01)
