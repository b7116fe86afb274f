"""Counts equal those worked out by hand or by other means, and need no memory."""

import pytest
import torch
from torch import nn

from nsarm_cli.benchmark.families import META, build_subject, builders
from nsarm_cli.benchmark.work import count_work
from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS

from .conftest import micro

CPU = torch.device("cpu")

COUNTED = {"nsarm-8b", "varsr"}  # once for all tests about them
# Multiply-adds of NSARM-8B at a prompt of 64 tokens, worked out from its layer sizes:
# side of the scale in tokens -> linear layers, self-attention, cross-attention, embedding and
# head. The head includes its modulation, which here is computed once, in the prefill.
SCALES_8B = {
    20: (2877292544000, 105627648000, 7340032000, 266534912),
    24: (4143301263360, 247230627840, 10569646080, 372506624),
    32: (7365868912640, 740168826880, 18790481920, 642252800),
    40: (11509170176000, 1890516992000, 29360128000, 989069312),
    48: (16573205053440, 4244373504000, 42278584320, 1412956160),
    64: (29463475650560, 12355916267520, 75161927680, 2491940864),
}
HEAD_MODULATION = 3584 * 2 * 3584
# Seven scales at once: linear layers, block-causal attention, cross-attention, text keys and
# values of all blocks, embeddings (of a first token too, which has none), text projections.
PREFILL_8B = (3747673538560, 52093870080, 9560391680, 65766686720, 104566784, 2321743872)
FIRST_EMBEDDING = 56 * 3584
ENCODE_256, DECODE_1024, TRANSFORMATION = 134241845248, 4943893233664, 329245681408
KEYS_AND_VALUES_PER_TOKEN = 573440
ROPE_PER_TOKEN = 128 * 4


@pytest.fixture(scope="module")
def nsarm_8b():
    subject = build_subject("nsarm-8b", META, torch.bfloat16)
    works = count_work(subject, 1)
    return subject, {stage.name: w for stage, w in zip(subject.stages, works, strict=True)}


def count(name: str, *, batch: int = 1, dtype: torch.dtype = torch.float32):
    return count_work(build_subject(name, META, dtype), batch)


def test_the_arithmetic_of_each_scale_of_the_8b_model_is_that_of_its_layers(nsarm_8b):
    _, work = nsarm_8b
    for side, parts in SCALES_8B.items():
        assert work[f"scale {side}x{side}"].flop == 2 * (sum(parts) - HEAD_MODULATION)


def test_the_arithmetic_of_the_prefill_of_the_8b_model_is_that_of_its_layers(nsarm_8b):
    _, work = nsarm_8b
    expected = sum(PREFILL_8B) - FIRST_EMBEDDING + HEAD_MODULATION
    assert work["prefill"].flop == 2 * expected


def test_the_convolutions_of_the_8b_model_are_counted(nsarm_8b):
    _, work = nsarm_8b
    assert work["encode"].flop == 2 * ENCODE_256
    assert work["transformation"].flop == 2 * TRANSFORMATION
    assert work["decode"].flop == 2 * DECODE_1024


def test_a_later_scale_reads_more_of_the_cache_and_the_same_weights(nsarm_8b):
    _, work = nsarm_8b
    more = work["scale 64x64"].bytes - work["scale 48x48"].bytes
    assert more == 4096 * KEYS_AND_VALUES_PER_TOKEN + (4096 - 2304) * ROPE_PER_TOKEN


def test_the_8b_model_has_its_parameters_and_takes_no_memory(nsarm_8b):
    subject, _ = nsarm_8b
    assert all(p.is_meta for p in subject.model.parameters())
    transformer_side = subject.parameters - sum(
        p.numel() for p in subject.model.autoencoder.parameters()
    )
    assert transformer_side == 8_760_895_424


@pytest.mark.parametrize("name", sorted(builders().keys() - COUNTED))
def test_every_preset_is_counted_and_its_tokens_are_its_schedules(name):
    subject = build_subject(name, META, torch.bfloat16)
    works = count_work(subject, 1)
    assert all(work.flop > 0 and work.bytes > 0 for work in works)
    assert sum(stage.tokens for stage in subject.stages) == PRESETS[name].schedule.total


@pytest.fixture(scope="module")
def varsr():
    subject = build_subject("varsr", META, torch.bfloat16)
    return subject, {
        stage.name: work.flop
        for stage, work in zip(subject.stages, count_work(subject, 1), strict=True)
    }


def test_a_picture_of_512_pixels_takes_varsr_14_tflop(varsr):
    """What its layers take in the authors' order of computing is 14.14 TFLOP.

    They apply the head to all tokens of the prefix, and the refiner's time network to each cell.
    """
    _, flop = varsr
    assert flop["prefix"] == 145_408_131_072
    assert flop["decode"] == 1_582_907_260_928
    assert sum(flop.values()) == pytest.approx(14.1425e12, rel=0.01)
    head = 2 * (1024 * 2) * 1536 * 4096  # of the prefix, both halves
    time = 2 * 10 * (2 * 1024 - 1) * (256 * 1024 + 1024 * 1024)
    assert sum(flop.values()) + head + time == pytest.approx(14.1425e12, rel=2e-4)


def test_varsr_has_its_parameters_and_takes_no_memory(varsr):
    subject, _ = varsr
    assert all(p.is_meta for p in subject.model.parameters())
    tokenizer = sum(p.numel() for p in subject.model.tokenizer.parameters())
    assert subject.parameters - tokenizer == 1_101_916_448
    assert tokenizer == 108_948_355
    assert sum(stage.tokens for stage in subject.stages) == VARSR_PRESETS["varsr"].schedule.total


@pytest.mark.parametrize("name", ["micro", "micro-text"])
@pytest.mark.usefixtures("presets")
def test_the_counted_convolutions_are_those_that_run(name):
    """Every convolution of a real run is counted by its output, here the autoencoder's."""
    subject = build_subject(name, CPU, torch.bfloat16)  # in float32 the decoder runs leanly
    flop = {"encoder": 0, "decoder": 0}

    def watch(part: str):
        def hook(conv: nn.Conv2d, _inputs: object, out: torch.Tensor) -> None:
            flop[part] += 2 * out.numel() * conv.weight[0].numel()

        for module in getattr(subject.model.autoencoder, part).modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(hook)

    watch("encoder")
    watch("decoder")
    lr = torch.zeros(3, 3, 16, 16)
    subject.run(lr, [torch.Generator().manual_seed(i) for i in range(3)], lambda: None)
    works = count(name, batch=3)
    assert (works[0].flop, works[-1].flop) == (flop["encoder"], flop["decoder"])


@pytest.mark.usefixtures("presets")
def test_arithmetic_grows_linearly_with_depth(monkeypatch):
    def scales(depth: int) -> list[int]:
        monkeypatch.setitem(PRESETS, "micro", micro(depth=depth))
        return [work.flop for work in count("micro")[2:-1]]

    one, two, four = scales(1), scales(2), scales(4)
    assert [b - a for a, b in zip(one, two, strict=True)] == [
        (c - b) // 2 for b, c in zip(two, four, strict=True)
    ]
    assert all(b > a for a, b in zip(one, two, strict=True))


@pytest.mark.usefixtures("presets")
def test_a_batch_multiplies_the_arithmetic_but_reads_the_weights_once():
    single, triple = count("micro"), count("micro", batch=3)
    expected = [3 * work.flop for work in single]
    # The windows share the modulation of blocks and head, 6 + 2 vectors of width 32.
    expected[2] -= 2 * (2 * 32 * 8 * 32)
    assert [work.flop for work in triple] == expected
    weights = sum(p.nbytes for p in _parameters("micro", "encoder"))
    picture = 3 * 16 * 16 * 4
    assert single[0].bytes == weights + picture
    assert triple[0].bytes == weights + 3 * picture


@pytest.mark.usefixtures("presets")
def test_half_precision_halves_the_bytes_of_the_weights_and_not_the_arithmetic():
    full, half = count("micro"), count("micro", dtype=torch.bfloat16)
    assert [work.flop for work in full] == [work.flop for work in half]
    saved = sum(p.nbytes for p in _parameters("micro", "encoder")) // 2
    assert full[0].bytes - half[0].bytes == saved


def _parameters(name: str, part: str) -> list[torch.Tensor]:
    subject = build_subject(name, META, torch.float32)
    return list(getattr(subject.model.autoencoder, part).parameters())
