"""The planner's arithmetic, and what it chooses for cards of every size."""

import dataclasses

import pytest
import torch

from nsarm_cli.errors import DeviceError
from nsarm_cli.memory.device import DeviceMemory, card_of, memory_of
from nsarm_cli.memory.estimate import GIB, PINNED, estimate
from nsarm_cli.memory.planner import Wishes, choose, ladder, required
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.core.memory import MemoryNeeds, Moment, Network
from nsarm_cli.models.nsarm.config import NSARM_8B
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.text.needs import FLAN_T5_XL, encoder_network

BF16 = torch.bfloat16
SMALL = MemoryNeeds(
    "small",
    (
        Network("encoder", plain=100, wide=0),
        Network("transformer", plain=10, wide=3, blocks=4, block=256, linear=128, rows=8),
        Network("decoder", plain=200, wide=0),
    ),
    (
        Moment("encode", ("encoder",), plain=50, wide=0),
        Moment("think", ("transformer",), plain=20, wide=5, cache=40, branched=True),
        Moment("decode", ("decoder",), plain=70, wide=0),
    ),
    window=8,
    scale=4,
)


@pytest.fixture(scope="module")
def full() -> MemoryNeeds:
    return memory_needs(NSARM_8B)


def sums(settings: MemorySettings, *, guided: bool = False) -> list[tuple[int, int, int]]:
    result = estimate(SMALL, settings, guided=guided)
    return [(m.weights, m.cache, m.activations) for m in result.moments]


TRANSFORMER = 2 * 10 + 4 * 3
BLOCK = 2 * 256


def test_without_offloading_all_weights_are_there_all_the_time():
    weights = 2 * 100 + TRANSFORMER + 4 * BLOCK + 2 * 200
    assert sums(MemorySettings(BF16)) == [
        (weights, 0, 100),
        (weights, 80, 60),
        (weights, 0, 140),
    ]


def test_a_batch_multiplies_what_is_no_weight_and_guidance_what_has_branches():
    weights = 2 * 100 + TRANSFORMER + 4 * BLOCK + 2 * 200
    assert sums(MemorySettings(BF16, batch=3), guided=True) == [
        (weights, 0, 300),
        (weights, 480, 360),
        (weights, 0, 420),
    ]


def test_what_is_decoded_alone_does_not_grow_with_the_batch():
    single = dataclasses.replace(SMALL.moments[2], single=True)
    needs = dataclasses.replace(SMALL, moments=(*SMALL.moments[:2], single))
    one, four = (estimate(needs, MemorySettings(BF16, batch=b)).moments[2] for b in (1, 4))
    assert one == four


def test_guidance_is_counted_as_the_model_was_tuned_unless_it_is_given():
    tuned = dataclasses.replace(SMALL, guided=True)
    for needs, given, guided in ((SMALL, None, False), (tuned, None, True), (tuned, False, False)):
        plan = choose(needs, card_of("8GB"), Wishes(BF16, batch=1, guided=given))
        assert plan.estimate == estimate(needs, plan.settings, guided=guided)


def test_idle_networks_are_away_and_the_transformer_stays():
    assert [w for w, *_ in sums(MemorySettings(BF16, offload=Offload.IDLE))] == [
        200 + TRANSFORMER + 4 * BLOCK,
        TRANSFORMER + 4 * BLOCK,
        400 + TRANSFORMER + 4 * BLOCK,
    ]
    assert estimate(SMALL, MemorySettings(BF16, offload=Offload.IDLE)).host == int(600 * PINNED)


@pytest.mark.parametrize("resident", [0, 2])
def test_blocks_that_come_and_go_are_there_one_at_a_time(resident):
    settings = MemorySettings(BF16, offload=Offload.WEIGHTS, resident=resident)
    stay = TRANSFORMER + resident * BLOCK
    assert [w for w, *_ in sums(settings)] == [200 + stay, stay + BLOCK, 400 + stay]
    assert estimate(SMALL, settings).host == int((600 + (4 - resident) * BLOCK) * PINNED)


def test_a_cache_that_waits_leaves_one_blocks_share():
    settings = MemorySettings(BF16, offload=Offload.ALL)
    assert [c for _, c, _ in sums(settings)] == [0, 20, 0]
    assert estimate(SMALL, settings).host == int((600 + 4 * BLOCK) * PINNED) + 80


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        (Quantize.INT8, 2 * 128 + 128 + 8 * 5),
        (Quantize.FP8, 2 * 128 + 128 + 8 * 4),
        (Quantize.INT4, 2 * 128 + 64 + 4),
    ],
)
def test_quantised_blocks_keep_scales_and_what_is_no_matrix(kind, block):
    plain = estimate(SMALL, MemorySettings(BF16)).peak
    assert estimate(SMALL, MemorySettings(BF16, quantize=kind)).peak == plain - 4 * (BLOCK - block)


def test_the_published_model_has_the_published_numbers(full):
    """8,760 million are the transformer and the transformation network alone."""
    count = {n.name: n.plain + n.wide + n.blocks * n.block for n in full.networks}
    assert round((count["transformer"] + count["transformation network"]) / 1e6) == 8761
    cache = max(moment.cache for moment in full.moments)
    assert cache == 10_521 * 40 * 2 * 3584
    encoder = encoder_network(FLAN_T5_XL)
    assert encoder.plain + encoder.wide == 1_223_527_424


@pytest.mark.parametrize(
    ("card", "offload", "batch"),
    [
        ("8GB", Offload.ALL, 1),
        ("12GB", Offload.WEIGHTS, 1),
        ("16GB", Offload.WEIGHTS, 1),
        ("24GB", Offload.IDLE, 1),
        ("40GB", Offload.NONE, 2),
        ("80GB", Offload.NONE, 4),
    ],
)
def test_the_published_model_fits_every_card_without_changing_a_number(full, card, offload, batch):
    memory = card_of(card)
    plan = choose(full, memory, Wishes(BF16))
    assert plan.fits
    assert (plan.settings.offload, plan.settings.batch) == (offload, batch)
    assert plan.settings.quantize is Quantize.NONE
    assert required(plan.estimate, memory) <= memory.free


def test_as_many_blocks_stay_as_there_is_room_for(full):
    memory = card_of("16GB")
    plan = choose(full, memory, Wishes(BF16))
    more = dataclasses.replace(plan.settings, resident=plan.settings.resident + 1)
    assert 0 < plan.settings.resident < 40
    assert required(estimate(full, more), memory) > memory.free


def test_a_machine_with_little_main_memory_quantises_as_the_last_resort(full):
    memory = DeviceMemory(16 * GIB, 16 * GIB, host=6 * GIB, separate=True)
    plan = choose(full, memory, Wishes(BF16))
    assert plan.fits
    assert plan.settings.quantize is Quantize.INT8
    kept = choose(full, memory, Wishes(BF16, quantize=Quantize.NONE))
    assert not kept.fits
    assert kept.settings.quantize is Quantize.NONE


def test_what_the_user_fixed_stays_fixed(full):
    wishes = Wishes(BF16, batch=8, offload=Offload.NONE, quantize=Quantize.FP8)
    (only,) = ladder(full, card_of("8GB"), wishes)
    assert only == MemorySettings(BF16, 8, Offload.NONE, Quantize.FP8)
    assert not choose(full, card_of("8GB"), wishes).fits


def test_a_processor_takes_one_window_and_offloads_nothing(full):
    memory = memory_of(torch.device("cpu"))
    assert 0 < memory.free <= memory.total
    assert {(s.batch, s.offload) for s in ladder(full, memory, Wishes(BF16))} == {(1, Offload.NONE)}


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * GIB), ("16", 16 * GIB), ("1.5 GiB", 1.5 * GIB), ("512M", GIB / 2)],
)
def test_a_card_is_named_by_its_size(text, size):
    assert card_of(text).free == size


@pytest.mark.parametrize("text", ["", "much", "0GB", "-1", "16TB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(DeviceError, match="is no size"):
        card_of(text)
