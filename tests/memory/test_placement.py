"""A model that waits beside the device computes what it computes on it."""

import dataclasses

import pytest
import torch
from tests.published_varsr import make_varsr

from nsarm_cli.memory.estimate import estimate
from nsarm_cli.memory.pinned import arrange
from nsarm_cli.memory.placement import Offloadable, Placement
from nsarm_cli.memory.settings import MemorySettings, Offload
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_8B, NSARM_NANO
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig
from nsarm_cli.models.varsr.resolver import VarsrResolver

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(
    NSARM_NANO,
    name="micro",
    window=16,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(8, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(8, 32, 1, (2, 4), groups=8),
    transformer=TransformerConfig(32, 3, 2, 32, 64, scales=4, cross=True),
    text_width=256,
    overlap=4,
)


class Carrier:
    """Copies a tensor as a device would get it, and counts the bytes that are there at once."""

    def __init__(self):
        self.now = self.peak = self.trips = 0

    def __call__(self, tensor):
        import weakref

        copy = tensor.clone()
        self.now += copy.nbytes
        self.trips += 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(copy.untyped_storage(), self._drop, copy.nbytes)
        return copy

    def _drop(self, size):
        self.now -= size


@pytest.fixture
def resolver() -> NsarmTextResolver:
    torch.manual_seed(0)
    model = NsarmModel(CONFIG).requires_grad_(requires_grad=False).eval()
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape))
    return NsarmTextResolver(model, torch.randn(3, 256))


def run(resolver, **settings):
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampling = Sampling(**settings)
    with torch.inference_mode():
        return resolver.resolve(lr, [torch.Generator().manual_seed(1)], sampling)


@pytest.mark.parametrize("guidance", [1, 3])
@pytest.mark.parametrize(
    ("offload", "resident"),
    [(Offload.IDLE, 0), (Offload.WEIGHTS, 0), (Offload.WEIGHTS, 2), (Offload.ALL, 0)],
)
def test_offloading_changes_no_number(resolver, offload, resident, guidance):
    expected = run(resolver, guidance=guidance)
    before = {n: p.data_ptr() for n, p in resolver.model.named_parameters()}
    carry = Carrier()
    Placement(resolver, CPU, carry).apply(
        MemorySettings(torch.float32, offload=offload, resident=resident)
    )
    assert torch.equal(run(resolver, guidance=guidance), expected)
    assert carry.trips > 0
    assert carry.now == 0  # no copy outlives its work
    assert {n: p.data_ptr() for n, p in resolver.model.named_parameters()} == before


def test_blocks_come_one_at_a_time(resolver):
    carry = Carrier()
    Placement(resolver, CPU, carry).apply(MemorySettings(torch.float32, offload=Offload.WEIGHTS))
    run(resolver)
    block = sum(p.nbytes for p in resolver.transformer.blocks[0].parameters())
    visitors = [sum(p.nbytes for p in v.parameters()) for v in resolver.visitors]
    assert carry.peak == max(block, *visitors)


class Memory:
    """Gives memory as PyTorch gives pinned memory, and refuses after some pieces."""

    def __init__(self, pieces=1000):
        self.taken = []
        self.left = pieces

    def __call__(self, size):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA error: out of memory")
        self.taken.append(size)
        return torch.empty(size, dtype=torch.uint8)


def test_what_waits_shares_pinned_memory_and_computes_the_same(resolver):
    kernels = resolver.model.autoencoder.decoder.conv_in.weight
    kernels.data = kernels.data.contiguous(memory_format=torch.channels_last)
    expected = run(resolver)
    memory = Memory()
    Placement(resolver, CPU, Carrier(), memory).apply(
        MemorySettings(torch.float32, offload=Offload.ALL)
    )
    assert torch.equal(run(resolver), expected)
    waiting = [*resolver.visitors, *resolver.transformer.blocks]
    tensors = [tensor for module in waiting for tensor in module.parameters()]
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    assert len(places) == len(memory.taken) < len(tensors) / 5
    assert all(size.bit_count() == 1 for size in memory.taken)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors)
    kernels = resolver.model.autoencoder.decoder.conv_in.weight
    assert kernels.is_contiguous(memory_format=torch.channels_last)


def test_what_cannot_be_pinned_waits_all_the_same(resolver):
    expected = run(resolver)
    memory = Memory(pieces=2)
    Placement(resolver, CPU, Carrier(), memory).apply(
        MemorySettings(torch.float32, offload=Offload.ALL)
    )
    assert len(memory.taken) == 2
    assert torch.equal(run(resolver), expected)


@pytest.mark.parametrize("lengths", [[1], [512, 513, 1], [3 << 20] * 9 + [5], [1 << 29, 7]])
def test_places_do_not_overlap_and_are_within_their_piece(lengths):
    pieces = arrange(lengths)
    numbers = [number for piece in pieces for number, _ in piece.places]
    assert sorted(numbers) == list(range(len(lengths)))
    for piece in pieces:
        ends = [0]
        for number, first in piece.places:
            assert first >= ends[-1]
            ends.append(first + lengths[number])
        assert ends[-1] <= piece.size


@pytest.mark.parametrize("resident", [0, 20, 39])
def test_the_estimate_is_what_the_published_model_takes_in_pinned_memory(published, resident):
    """One by one, 40 blocks of 392 MiB would take 512 MiB each."""
    waiting = [*published.visitors, *published.transformer.blocks[resident:]]
    lengths = [tensor.nbytes for module in waiting for tensor in module.parameters()]
    taken = sum(piece.size for piece in arrange(lengths))
    settings = MemorySettings(torch.bfloat16, offload=Offload.WEIGHTS, resident=resident)
    planned = estimate(memory_needs(NSARM_8B), settings).host
    assert sum(lengths) <= taken <= planned <= 1.06 * taken


@pytest.fixture(scope="module")
def published() -> NsarmTextResolver:
    with torch.device("meta"):
        model = cast_for_inference(NsarmModel(NSARM_8B), torch.bfloat16)
    return NsarmTextResolver(model, torch.empty(1, 2048))


def test_a_model_can_be_placed_again(resolver):
    expected = run(resolver)
    carry = Carrier()
    placement = Placement(resolver, CPU, carry)
    for offload in (Offload.ALL, Offload.IDLE, Offload.NONE):
        placement.apply(MemorySettings(torch.float32, offload=offload))
        assert torch.equal(run(resolver), expected)
    trips = carry.trips
    run(resolver)
    assert carry.trips == trips  # nothing is carried any more


def test_a_failure_in_the_middle_leaves_everything_at_home(resolver, monkeypatch):
    expected = run(resolver)
    carry = Carrier()
    Placement(resolver, CPU, carry).apply(MemorySettings(torch.float32, offload=Offload.ALL))
    decoder = resolver.model.autoencoder.decoder

    def fail(*_):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(decoder.conv_out, "forward", fail)
        with pytest.raises(torch.OutOfMemoryError):
            run(resolver)
    assert torch.equal(run(resolver), expected)


def test_nano_can_be_offloaded(resolver):
    assert isinstance(resolver, Offloadable)
    with torch.device("meta"):
        assert isinstance(NsarmResolver(NsarmModel(NSARM_NANO)), Offloadable)


@pytest.mark.parametrize(
    ("offload", "resident"), [(Offload.IDLE, 0), (Offload.WEIGHTS, 1), (Offload.ALL, 0)]
)
def test_offloading_changes_no_number_of_varsr(offload, resident):
    resolver = VarsrResolver(make_varsr())
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def enlarge():
        return resolver.resolve(lr, [torch.Generator().manual_seed(1)], resolver.sampling)

    expected = enlarge()
    carry = Carrier()
    Placement(resolver, CPU, carry).apply(
        MemorySettings(torch.float32, offload=offload, resident=resident)
    )
    assert torch.equal(enlarge(), expected)
    assert carry.trips > 0
    assert carry.now == 0
