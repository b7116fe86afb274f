"""Whole autoregressive runs, against the authors' code: seed 1, temperature 0.5, top-p 0.97.

The authors run the seven preliminary scales one by one and throw their drawn bits away; here
they are one prefill without a head. Logits, inputs, bits and sums must not show it.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from nsarm_cli.models.core.generate import Guidance
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.bsq import latents_to_bits, quantise, to_tokens
from nsarm_cli.models.nsarm.codec import BitCodec
from nsarm_cli.models.nsarm.config import NSARM_TINY
from nsarm_cli.models.nsarm.resolver import NsarmTextResolver

SCHEDULE = NSARM_TINY.schedule
PRELIMINARY = 7
TOKENS = [(1, length, 56) for length in SCHEDULE.lengths]
LOGITS = 3e-5
SUMS = 3e-6


@dataclass(frozen=True)
class Run:
    """What a run was asked for; `file` has what the authors' code made of it."""

    file: str
    sampling: Sampling
    from_picture: bool = False


PLAIN = Run("tiny_ar_cfg1", Sampling(), from_picture=True)
GREEDY = Run("tiny_ar_greedy", Sampling(temperature=0))
GUIDED = Run("tiny_ar_cfg3", Sampling(guidance=3))
GUIDED_INSIDE = Run("tiny_ar_cfg3_layer", Sampling(guidance=3, guidance_layer=-2))


@pytest.fixture
def prompt(recipe) -> Tensor:
    return torch.from_numpy(recipe.noise("input.text_features", (12, 256))) * 0.3


@pytest.fixture
def record(tiny):
    """Record what the transformer reads and writes: tokens per scale, logits per pass."""
    tokens: list[Tensor] = []
    logits: list[Tensor] = []
    transformer = tiny.transformer
    handles = [
        transformer.word_embedding.register_forward_pre_hook(lambda _, x: tokens.append(x[0])),
        transformer.head.register_forward_hook(lambda _m, _x, out: logits.append(out)),
    ]
    yield tokens, logits
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    "run", [PLAIN, GREEDY, GUIDED, GUIDED_INSIDE], ids=lambda run: run.file.removeprefix("tiny_ar_")
)
def test_a_run_is_the_recorded_one(
    run, tiny, prompt, pictures, preliminary, record, golden, monkeypatch
):
    recorded = golden(run.file)
    if not run.from_picture:
        codes = [quantise(residual) for residual in preliminary]
        monkeypatch.setattr(tiny, "preliminary_codes", lambda _: codes)
    tokens, logits = record
    trace: dict[str, Tensor] = {}
    generators = [torch.Generator().manual_seed(1)]
    resolver = NsarmTextResolver(tiny, prompt)
    feature = resolver.feature(pictures[:1], generators, run.sampling, trace=trace)

    for k, residual in enumerate(preliminary):
        assert torch.equal(trace[f"bits.{k}"], to_tokens(latents_to_bits(residual), 2))
    drawn = recorded.bits("bits_packed", TOKENS)
    for k, scale_logits in enumerate(logits, start=PRELIMINARY):
        theirs = scale_logits if run.sampling.guidance_layer == 0 else scale_logits[:1]
        assert recorded.difference(f"logits.{k}", theirs) < LOGITS
        assert torch.equal(trace[f"bits.{k}"], drawn[k])
    assert len(logits) == len(SCHEDULE) - PRELIMINARY
    if run is PLAIN:
        assert len(tokens) == len(SCHEDULE) - 1
        for k, scale_tokens in enumerate(tokens, start=1):
            assert recorded.difference(f"input.{k}", scale_tokens) < SUMS
    if run is not GUIDED_INSIDE:
        assert recorded.difference("summed_codes", feature) < SUMS
    assert torch.equal(trace["feature"], feature)


@pytest.mark.parametrize(
    "run", [PLAIN, GUIDED, GUIDED_INSIDE], ids=lambda run: run.file.removeprefix("tiny_ar_")
)
def test_logits_of_the_prefill_would_draw_the_bits_that_are_thrown_away(run, tiny, prompt, golden):
    recorded, transformer = golden(run.file), tiny.transformer
    known = golden(PLAIN.file)
    inputs = [known[f"input.{k}"] for k in range(1, PRELIMINARY)]
    guidance = Guidance.of(run.sampling, len(SCHEDULE))
    lengths = SCHEDULE.lengths[:PRELIMINARY]
    captions, after = [prompt], None
    if guidance is not None:
        captions += tiny.conditioner.unconditional_like(captions)
        inputs = [tokens.repeat(2, 1, 1) for tokens in inputs]
        after = guidance.after_block(transformer.config.depth, 0, lengths)
    condition = transformer.prepare(tiny.conditioner(captions))
    rope = transformer.rope(SCHEDULE, torch.device("cpu"))
    hidden = transformer.hidden(inputs, 0, SCHEDULE, rope, condition, after=after)
    codec, generator = BitCodec(14, 2), torch.Generator().manual_seed(1)
    drawn = recorded.bits("bits_packed", TOKENS)
    scales = transformer.logits(hidden, condition).split(lengths, dim=1)
    for k, logits in enumerate(scales):
        mixed = logits[:1]
        if guidance is not None and guidance.layer == 0:
            mixed = guidance.mix(logits, k)
        theirs = logits if run.sampling.guidance_layer == 0 else mixed
        assert recorded.difference(f"logits.{k}", theirs) < LOGITS
        assert torch.equal(codec.draw(mixed, run.sampling, [generator]), drawn[k])
