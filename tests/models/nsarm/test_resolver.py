"""A window's result is its own: not of its batch, of the threads, or of chance."""

import pytest
import torch

from nsarm_cli.models.interface import Sampling, TakesGuidance, TakesText, Text
from nsarm_cli.models.nsarm.model import cast_for_inference
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver

SEEDS = (4, 5, 6)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(params=[False, True], ids=["constant", "text"])
def resolver(request, make_model) -> NsarmResolver:
    prompt = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    model = make_model(text=request.param)
    return NsarmTextResolver(model, prompt) if request.param else NsarmResolver(model)


def test_a_window_becomes_a_picture_four_times_larger(resolver, windows):
    pictures = resolver.resolve(windows, generators(*SEEDS), resolver.sampling)
    assert pictures.shape == (3, 3, 64, 64)
    assert pictures.dtype == torch.float32
    assert pictures.abs().max() <= 1
    assert resolver.scale * resolver.window == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_batch_gives_what_each_window_gives_alone(resolver, windows, dtype):
    cast_for_inference(resolver.model, dtype)
    together = resolver.resolve(windows, generators(*SEEDS), resolver.sampling)
    for i, seed in enumerate(SEEDS):
        alone = resolver.resolve(windows[i : i + 1], generators(seed), resolver.sampling)
        assert torch.equal(together[i : i + 1], alone)


def test_a_seed_decides(resolver, windows):
    first, again, other = (
        resolver.resolve(windows[:1], generators(seed), resolver.sampling) for seed in (4, 4, 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_temperature_0_does_not_look_at_the_seed(resolver, windows):
    greedy = Sampling(temperature=0)
    first = resolver.resolve(windows[:1], generators(4), greedy)
    assert torch.equal(first, resolver.resolve(windows[:1], generators(5), greedy))


def test_the_trace_holds_bits_of_all_scales_and_logits_of_the_sampled_ones(resolver, windows):
    trace: dict[str, torch.Tensor] = {}
    resolver.resolve(windows, generators(*SEEDS), resolver.sampling, trace=trace)
    assert {f"bits.{k}" for k in range(5)} | {"logits.3", "logits.4", "feature"} == set(trace)
    assert all(len(tensor) == 1 for tensor in trace.values())


def test_progress_goes_through_all_windows(resolver, windows):
    calls: list[tuple[int, int]] = []
    resolver.resolve(
        windows, generators(*SEEDS), resolver.sampling, lambda *progress: calls.append(progress)
    )
    # A prefill of three scales and two sampled ones, for each of three windows.
    assert calls == [(done, 9) for done in range(1, 10)]


def test_logits_and_conditions_stay_float32_whatever_the_type_of_the_weights(resolver, windows):
    cast_for_inference(resolver.model, torch.bfloat16)
    trace: dict[str, torch.Tensor] = {}
    resolver.resolve(windows[:1], generators(0), resolver.sampling, trace=trace)
    assert {trace[name].dtype for name in ("logits.3", "logits.4", "feature")} == {torch.float32}
    kept = [resolver.model.transformer.head, resolver.model.conditioner]
    assert {p.dtype for module in kept for p in module.parameters()} == {torch.float32}
    moved = [resolver.model.transformer.blocks, resolver.model.autoencoder]
    assert {p.dtype for module in moved for p in module.parameters()} == {torch.bfloat16}


def test_guidance_needs_text(make_model, windows):
    with pytest.raises(ValueError, match="no text"):
        NsarmResolver(make_model()).resolve(windows[:1], generators(0), Sampling(guidance=2))


def test_guidance_changes_the_picture_of_a_model_with_text(make_model, windows):
    prompt = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    resolver = NsarmTextResolver(make_model(text=True), prompt)
    plain, guided = (
        resolver.resolve(windows, generators(*SEEDS), Sampling(guidance=guidance))
        for guidance in (1, 3)
    )
    assert not torch.equal(plain, guided)


def test_each_kind_of_model_has_its_resolver(make_model):
    with pytest.raises(ValueError, match="takes text, so it needs a prompt"):
        NsarmResolver(make_model(text=True))
    with pytest.raises(ValueError, match="has no text, so it takes no prompt"):
        NsarmTextResolver(make_model(), torch.zeros(5, 256))


def test_only_a_model_with_text_says_that_it_takes_text_and_guidance(resolver):
    has_text = isinstance(resolver, NsarmTextResolver)
    assert isinstance(resolver, TakesText) is has_text
    assert isinstance(resolver, TakesGuidance) is has_text


def features(tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, 256, generator=torch.Generator().manual_seed(seed))


def test_a_prompt_changes_the_picture_and_leaves_the_resolver_as_it_was(make_model, windows):
    first = NsarmTextResolver(make_model(text=True), features(5, 1))
    other = first.with_text(Text(features(3, 2)))
    pictures = [
        r.resolve(windows[:1], generators(0), Sampling(temperature=0))
        for r in (first, other, other.with_text(Text(features(5, 1))), first)
    ]
    assert not torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[0], pictures[3])


def test_a_negative_prompt_acts_through_guidance_alone(make_model, windows):
    plain = NsarmTextResolver(make_model(text=True), features(5, 1))
    negative = plain.with_text(Text(negative=features(9, 3)))  # longer, so one branch is padded
    for guidance, alike in ((1, True), (3, False)):
        sampling = Sampling(temperature=0, guidance=guidance)
        one, two = (r.resolve(windows[:1], generators(0), sampling) for r in (plain, negative))
        assert torch.equal(one, two) is alike


def test_a_negative_prompt_equal_to_the_prompt_makes_guidance_idle(make_model, windows):
    resolver = NsarmTextResolver(make_model(text=True), features(5, 1), features(5, 1))
    plain, guided = (
        resolver.feature(windows[:1], generators(0), Sampling(temperature=0, guidance=guidance))
        for guidance in (1, 3)
    )
    assert torch.equal(plain, guided)


def test_features_of_another_width_are_refused(make_model):
    with pytest.raises(ValueError, match=r"takes features of width 256, not \(5, 255\)"):
        NsarmTextResolver(make_model(text=True), torch.zeros(5, 255))


def test_every_window_needs_its_generator(resolver, windows):
    with pytest.raises(ValueError, match="2 generators for 3 windows"):
        resolver.resolve(windows, generators(0, 1), resolver.sampling)
