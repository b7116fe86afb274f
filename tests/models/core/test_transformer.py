"""The ways through the transformer agree: all at once, in two parts, scale by scale."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nsarm_cli.models.core.attention import block_causal_attention
from nsarm_cli.models.core.block import Modulation
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.nsarm.schedules import schedule_for

CPU = torch.device("cpu")
SCHEDULES = [
    ScaleSchedule.square((1, 2, 3, 5, 8), 2),
    ScaleSchedule(((1, 1), (2, 1), (3, 2), (4, 7), (9, 5)), 1, (9, 5)),
    schedule_for(0.571, "1M").truncated(5),
]
IDS = ["square", "tall", "wide"]
# Values are about 1; sums in another order change float32 in the sixth digit.
TOLERANCE = 2e-5


@pytest.fixture(params=SCHEDULES, ids=IDS)
def schedule(request) -> ScaleSchedule:
    return request.param


@pytest.fixture(params=[None, (5, 5), (6, 2)], ids=["no-text", "text", "unequal-text"])
def condition(request, make_condition) -> Condition:
    return make_condition(2, request.param)


def test_prefill_then_steps_give_what_all_scales_at_once_give(
    schedule, condition, make_transformer, make_inputs
):
    """Whatever number of scales the prefill has; with one scale per step it is the plain loop."""
    transformer = make_transformer(cross=condition.context is not None)
    inputs = make_inputs(schedule)
    at_once = transformer(inputs, schedule, condition)
    prepared, rope = transformer.prepare(condition), transformer.rope(schedule, CPU)
    for prefilled in range(1, len(schedule) + 1):
        cache = transformer.allocate_cache(2, schedule)
        hidden = [
            transformer.hidden(inputs[: prefilled - 1], 0, schedule, rope, prepared, cache=cache)
        ]
        for k in range(prefilled, len(schedule)):
            step = transformer.hidden([inputs[k - 1]], k, schedule, rope, prepared, cache=cache)
            hidden.append(step)
        assert cache.length == schedule.total
        logits = transformer.logits(torch.cat(hidden, dim=1), prepared)
        torch.testing.assert_close(logits, at_once, atol=TOLERANCE, rtol=0)


def test_a_prefix_of_the_condition_belongs_to_the_first_scale(make_transformer, make_inputs):
    """With a prefix and a modulation of each block's own, as VARSR has them."""
    schedule = ScaleSchedule(((1, 1), (2, 3), (4, 5)), 1, (8, 8), prefix=(4, 5))
    assert schedule.lengths == (21, 6, 20)
    transformer = make_transformer(scales=3, prefix=20, signal=nn.Identity, modulation=Modulation)
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(2, 64, generator=generator)
    condition = Condition(pooled, prefix=torch.randn(2, 20, 64, generator=generator))
    inputs = make_inputs(schedule)
    at_once = transformer(inputs, schedule, condition)
    assert at_once.shape[1] == 27

    prepared, rope = transformer.prepare(condition), transformer.rope(schedule, CPU)
    cache = transformer.allocate_cache(2, schedule)
    hidden = [transformer.hidden([], 0, schedule, rope, prepared, cache=cache)[:, 20:]]
    for k in (1, 2):
        step = transformer.hidden([inputs[k - 1]], k, schedule, rope, prepared, cache=cache)
        hidden.append(step)
    logits = transformer.logits(torch.cat(hidden, dim=1), prepared)
    torch.testing.assert_close(logits, at_once, atol=TOLERANCE, rtol=0)

    other = Condition(pooled, prefix=-condition.prefix)
    assert (transformer(inputs, schedule, other) - at_once).abs().amax(-1).min() > 1e-3
    swapped = Condition(pooled.flip(0), prefix=condition.prefix)
    assert (transformer(inputs, schedule, swapped) - at_once).abs().amax(-1).min() > 1e-3


def test_several_scales_can_follow_a_filled_cache_in_one_call(
    make_transformer, make_inputs, make_condition
):
    schedule = SCHEDULES[0]
    transformer, inputs, condition = make_transformer(), make_inputs(schedule), make_condition(2)
    prepared, rope = transformer.prepare(condition), transformer.rope(schedule, CPU)
    cache = transformer.allocate_cache(2, schedule)
    first = transformer.hidden(inputs[:1], 0, schedule, rope, prepared, cache=cache)
    rest = transformer.hidden(inputs[1:], 2, schedule, rope, prepared, cache=cache)
    at_once = transformer(inputs, schedule, condition)
    logits = transformer.logits(torch.cat([first, rest], dim=1), prepared)
    torch.testing.assert_close(logits, at_once, atol=TOLERANCE, rtol=0)


def test_a_sequence_may_end_early(make_transformer, make_inputs, make_condition):
    schedule = SCHEDULES[0]
    transformer, inputs, condition = make_transformer(), make_inputs(schedule), make_condition(2)
    whole = transformer(inputs, schedule, condition)
    short = transformer(inputs[:2], schedule, condition)
    torch.testing.assert_close(short, whole[:, : short.shape[1]], atol=TOLERANCE, rtol=0)


def test_a_truncated_schedule_gives_the_beginning_of_the_whole_one(
    make_transformer, make_inputs, make_condition
):
    """Positions stay on the full grid, so a smaller picture reads the same table."""
    schedule = SCHEDULES[1]
    transformer, inputs, condition = make_transformer(), make_inputs(schedule), make_condition(2)
    whole = transformer(inputs[:2], schedule, condition)
    assert torch.equal(transformer(inputs[:2], schedule.truncated(3), condition), whole)


def test_logits_of_a_scale_depend_on_its_own_and_coarser_inputs_only(
    make_transformer, make_inputs, make_condition
):
    schedule = SCHEDULES[0]
    transformer, inputs, condition = make_transformer(), make_inputs(schedule), make_condition(2)
    before = transformer(inputs, schedule, condition).split(schedule.lengths, dim=1)
    inputs[2] = inputs[2] + 1  # of scale 3
    after = transformer(inputs, schedule, condition).split(schedule.lengths, dim=1)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, False, False, True, True]


def test_attention_by_scales_equals_attention_with_a_dense_mask():
    lengths, before = (1, 4, 6), 3
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 3, sum(lengths), 8, generator=generator)
    keys, values = (
        torch.randn(2, 3, before + sum(lengths), 8, generator=generator) for _ in range(2)
    )
    scale_of_query = torch.tensor(lengths).cumsum(0).repeat_interleave(torch.tensor(lengths))
    seen = torch.arange(before + sum(lengths)) < before + scale_of_query[:, None]
    dense = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=0.5)
    ours = block_causal_attention(queries, keys, values, lengths, scale=0.5)
    torch.testing.assert_close(ours, dense)


def test_what_stands_behind_a_short_caption_does_not_matter(
    make_transformer, make_inputs, make_condition
):
    schedule = SCHEDULES[0]
    transformer, inputs = make_transformer(cross=True), make_inputs(schedule)
    condition = make_condition(2, (6, 2))
    logits = transformer(inputs, schedule, condition)
    condition.context[1, 2:] = 100
    assert torch.equal(transformer(inputs, schedule, condition), logits)
    alone = Condition(condition.pooled[1:], condition.context[1:, :2])
    own = transformer([tokens[1:] for tokens in inputs], schedule, alone)
    torch.testing.assert_close(own, logits[1:], atol=TOLERANCE, rtol=0)


def test_blocks_with_cross_attention_need_a_context(make_transformer, make_inputs, make_condition):
    schedule = SCHEDULES[0]
    with pytest.raises(ValueError, match="needs context"):
        make_transformer(cross=True)(make_inputs(schedule), schedule, make_condition(2))


def test_attention_temperature_is_at_most_100(make_transformer, make_inputs, make_condition):
    schedule = SCHEDULES[0]
    transformer, inputs, condition = make_transformer(), make_inputs(schedule), make_condition(2)
    outputs = []
    for value in (4.605170249938965, 50.0):
        for block in transformer.blocks:
            block.attention.log_temperature.fill_(value)
        outputs.append(transformer(inputs, schedule, condition))
    torch.testing.assert_close(outputs[0], outputs[1], atol=TOLERANCE, rtol=0)
