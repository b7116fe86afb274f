"""The loop over scales equals a slow one that remembers nothing."""

import math

import pytest
import torch
from torch import Tensor

from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.codec import BitCodec

CPU = torch.device("cpu")
SCHEDULES = [
    ScaleSchedule.square((1, 2, 3, 5, 8), 2),
    ScaleSchedule(((1, 1), (2, 1), (3, 2), (4, 6), (9, 5)), 2, (9, 5)),
]
CODEC = BitCodec(6, 2)


@pytest.fixture(params=SCHEDULES, ids=["square", "tall"])
def schedule(request) -> ScaleSchedule:
    return request.param


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def codes_of_scales(schedule: ScaleSchedule, batch: int, scales: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, 6, *grid, generator=generator).sign() / math.sqrt(6)
        for grid in schedule.latents[:scales]
    ]


def run(transformer, schedule, condition, seeds, known=(), sampling=None, **kwargs) -> Tensor:
    sampling = sampling or Sampling()
    return generate(
        transformer,
        schedule,
        ResidualPyramid(schedule.latents),
        CODEC,
        known=list(known),
        condition=transformer.prepare(condition),
        rope=transformer.rope(schedule, CPU),
        generators=generators(*seeds),
        sampling=sampling,
        guidance=Guidance.of(sampling, len(schedule)),
        **kwargs,
    ).feature


def run_slowly(transformer, schedule, condition, seed, known, sampling) -> Tensor:
    """For one window: every scale computes all coarser ones again, draws, and is replaced."""
    pyramid = ResidualPyramid(schedule.latents)
    (generator,) = generators(seed)
    codes: list[Tensor] = []
    inputs: list[Tensor] = []
    for k, grid in enumerate(schedule.latents):
        if codes:
            inputs.append(CODEC.to_tokens(pyramid.next_input(pyramid.compose(codes), k)))
        logits = transformer(inputs, schedule, condition)[:, -schedule.lengths[k] :]
        drawn = CODEC.to_codes(CODEC.draw(logits, sampling, [generator]), grid)
        codes.append(known[k] if k < len(known) else drawn)
    return pyramid.compose(codes)


@pytest.mark.parametrize("prefilled", [0, 1, 3, 4])
def test_the_loop_equals_one_without_prefill_cache_or_shortcuts(
    schedule, prefilled, make_transformer, make_condition
):
    transformer, condition = make_transformer(), make_condition(1)
    known = codes_of_scales(schedule, 1, prefilled)
    ours = run(transformer, schedule, condition, [5], known)
    slow = run_slowly(transformer, schedule, condition, 5, known, Sampling())
    torch.testing.assert_close(ours, slow, atol=1e-5, rtol=0)


def test_when_all_scales_are_known_their_sum_comes_back(schedule, make_condition, make_transformer):
    known = codes_of_scales(schedule, 2, len(schedule))
    transformer = make_transformer()
    transformer.hidden = None  # nothing is left to compute
    feature = run(transformer, schedule, make_condition(2), [0, 1], known)
    assert torch.equal(feature, ResidualPyramid(schedule.latents).compose(known))


def test_a_seed_decides(schedule, make_transformer, make_condition):
    transformer, condition = make_transformer(), make_condition(1)
    known = codes_of_scales(schedule, 1, 2)
    first, again, other = (run(transformer, schedule, condition, [s], known) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_temperature_0_takes_the_likelier_bits_whatever_the_seed(
    schedule, make_transformer, make_condition
):
    transformer, condition = make_transformer(), make_condition(1)
    known, greedy = codes_of_scales(schedule, 1, 2), Sampling(temperature=0)
    trace: dict[str, Tensor] = {}
    first = run(transformer, schedule, condition, [0], known, greedy, trace=trace)
    assert torch.equal(first, run(transformer, schedule, condition, [1], known, greedy))
    for k in range(2, len(schedule)):
        pairs = trace[f"logits.{k}"].unflatten(-1, (-1, 2))
        assert torch.equal(trace[f"bits.{k}"], pairs.argmax(-1).bool())


def test_windows_of_a_batch_do_not_see_each_other(schedule, make_transformer, make_condition):
    transformer, condition = make_transformer(), make_condition(3)
    known, seeds = codes_of_scales(schedule, 3, 2), [4, 5, 6]
    together = run(transformer, schedule, condition, seeds, known)
    for i, seed in enumerate(seeds):
        own = Condition(condition.pooled[i : i + 1])
        alone = run(transformer, schedule, own, [seed], [codes[i : i + 1] for codes in known])
        assert torch.equal(together[i : i + 1], alone)


def test_progress_counts_the_prefill_as_one_pass(schedule, make_transformer, make_condition):
    for prefilled, passes in ((0, 5), (1, 5), (3, 3)):
        calls: list[tuple[int, int]] = []
        run(
            make_transformer(),
            schedule,
            make_condition(1),
            [0],
            codes_of_scales(schedule, 1, prefilled),
            on_scale=lambda done, total: calls.append((done, total)),  # noqa: B023
        )
        assert calls == [(done, passes) for done in range(1, passes + 1)]


def test_the_trace_explains_the_sum(schedule, make_transformer, make_condition):
    trace: dict[str, Tensor] = {}
    known = codes_of_scales(schedule, 2, 2)
    feature = run(make_transformer(), schedule, make_condition(2), [0, 1], known, trace=trace)
    drawn = [CODEC.to_codes(trace[f"bits.{k}"], schedule.latents[k]) for k in range(2, 5)]
    own = [codes[:1] for codes in known]
    composed = ResidualPyramid(schedule.latents).compose([*own, *drawn])
    assert torch.equal(composed, trace["feature"])
    assert torch.equal(feature[:1], trace["feature"])


@pytest.mark.parametrize("layer", [0, -1, -2, -3])
def test_guidance_between_equal_branches_changes_nothing(
    layer, schedule, make_transformer, make_condition
):
    transformer, condition = make_transformer(), make_condition(1)
    both = Condition(condition.pooled.repeat(2, 1))
    known = codes_of_scales(schedule, 1, 2)
    plain, guided = {}, {}
    greedy = Sampling(temperature=0)
    run(transformer, schedule, condition, [0], known, greedy, trace=plain)
    strong = Sampling(temperature=0, guidance=3, guidance_layer=layer)
    run(transformer, schedule, both, [0], known, strong, trace=guided)
    for name, tensor in plain.items():
        torch.testing.assert_close(guided[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layer", [0, -2])
def test_guidance_of_1_at_a_scale_is_the_conditional_branch(
    layer, schedule, make_transformer, make_condition
):
    """Weights per scale: the first sampled scale is not guided, the next one is."""
    transformer, condition = make_transformer(), make_condition(2)
    own = Condition(condition.pooled[:1])
    known = codes_of_scales(schedule, 1, 2)
    plain, guided = {}, {}
    run(transformer, schedule, own, [0], known, trace=plain)
    sampling = Sampling(guidance=(1, 1, 1, 3, 3), guidance_layer=layer)
    run(transformer, schedule, condition, [0], known, sampling, trace=guided)
    torch.testing.assert_close(guided["logits.2"], plain["logits.2"], atol=1e-5, rtol=0)
    assert (guided["logits.3"] - plain["logits.3"]).abs().max() > 0.01


def test_a_wrong_number_of_guidance_weights_is_refused(schedule, make_transformer, make_condition):
    with pytest.raises(ValueError, match="2 guidance weights for 5 scales"):
        run(
            make_transformer(),
            schedule,
            make_condition(2),
            [0],
            sampling=Sampling(guidance=(2.0, 3.0)),
        )


def test_a_guidance_layer_before_the_first_block_is_refused(
    schedule, make_transformer, make_condition
):
    sampling = Sampling(guidance=2, guidance_layer=-4)
    with pytest.raises(ValueError, match="before the first of 3 blocks; it goes from 0 to -3"):
        run(make_transformer(), schedule, make_condition(2), [0], sampling=sampling)
