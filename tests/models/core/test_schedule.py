import pytest

from nsarm_cli.models.core.schedule import ScaleSchedule

SCHEDULE = ScaleSchedule(((1, 1), (2, 3), (4, 5)), 2, (4, 5))


def test_lengths_offsets_and_latents_follow_from_the_grids():
    assert SCHEDULE.lengths == (1, 6, 20)
    assert SCHEDULE.offsets == (0, 1, 7, 27)
    assert SCHEDULE.total == 27
    assert SCHEDULE.latents == ((2, 2), (4, 6), (8, 10))
    assert len(SCHEDULE) == 3


def test_a_truncated_schedule_keeps_its_positions():
    short = SCHEDULE.truncated(2)
    assert short.tokens == ((1, 1), (2, 3))
    assert short.position_grid == (4, 5)


def test_square_scales_are_given_by_their_sides():
    assert ScaleSchedule.square((1, 4), 1) == ScaleSchedule(((1, 1), (4, 4)), 1, (4, 4))


@pytest.mark.parametrize("tokens", [(), ((1, 1), (0, 2))])
def test_a_schedule_without_tokens_is_refused(tokens):
    with pytest.raises(ValueError, match="at least"):
        ScaleSchedule(tokens, 1, (1, 1))
