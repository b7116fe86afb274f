import math

import pytest
import torch

from nsarm_cli.models.core.sampling import draw, exponential_noise, filter_logits, mix_guidance


def pair(difference: float) -> torch.Tensor:
    return torch.tensor([0.0, difference])


def test_the_likelier_bit_is_certain_beyond_the_threshold():
    """top-p 0.97 removes a bit whose probability is at most 0.03."""
    threshold = math.log(0.97 / 0.03)
    below = filter_logits(pair(threshold - 0.01), top_p=0.97).softmax(-1)
    torch.testing.assert_close(below, pair(threshold - 0.01).softmax(-1))
    for sign, certain in ((1, [0.0, 1.0]), (-1, [1.0, 0.0])):
        beyond = filter_logits(pair(sign * (threshold + 0.01)), top_p=0.97).softmax(-1)
        assert beyond.tolist() == certain


def test_no_filter_leaves_logits_alone():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filter_logits(logits), logits)
    assert torch.equal(filter_logits(logits, top_k=5), logits)


def test_top_k_keeps_the_likeliest():
    logits = torch.tensor([[0.1, 3.0, 2.0, -1.0]])
    assert filter_logits(logits, top_k=2).isfinite().tolist() == [[False, True, True, False]]


def test_top_p_keeps_at_least_one_class_even_among_equals():
    kept = filter_logits(torch.zeros(4, 6), top_p=0.01).isfinite()
    assert kept.sum(-1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("classes", [2, 7])
def test_draws_are_those_of_multinomial_and_have_its_frequencies(classes):
    logits = torch.randn(classes, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(-1).expand(20000, classes)
    noise = exponential_noise(probabilities.shape, torch.Generator().manual_seed(2))
    drawn = draw(probabilities, noise)
    theirs = torch.multinomial(
        probabilities, 1, replacement=True, generator=torch.Generator().manual_seed(2)
    )
    assert torch.equal(drawn, theirs[:, 0])
    frequencies = drawn.bincount(minlength=classes) / 20000
    # Five standard deviations of the rarest case, 0.5 / sqrt(20000).
    assert (frequencies - probabilities[0]).abs().max() < 0.018


def test_what_has_no_probability_is_never_drawn():
    noise = exponential_noise((10000, 2), torch.Generator().manual_seed(0))
    assert draw(torch.tensor([0.0, 1.0]), noise).all()


def test_guidance_interpolates_and_exaggerates():
    conditional, unconditional = torch.tensor([2.0]), torch.tensor([1.0])
    for weight, value in ((0, 1.0), (1, 2.0), (3, 4.0)):
        assert mix_guidance(conditional, unconditional, weight).item() == value
