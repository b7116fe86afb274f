import pytest
import torch

from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.bsq import to_tokens
from nsarm_cli.models.nsarm.codec import BitCodec

CODEC = BitCodec(channels=3, patch=2)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def logits(batch: int, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, tokens, 24, generator=generator)


def test_a_skipped_scale_uses_up_what_drawing_it_would():
    drawing, skipping = generators(1), generators(1)
    CODEC.draw(logits(1, 9), Sampling(), drawing)
    CODEC.skip(9, skipping)
    assert torch.equal(drawing[0].get_state(), skipping[0].get_state())


def test_each_window_draws_from_its_own_generator():
    together = CODEC.draw(logits(3, 5), Sampling(), generators(4, 5, 6))
    alone = [
        CODEC.draw(logits(3, 5)[i : i + 1], Sampling(), generators(seed))
        for i, seed in enumerate((4, 5, 6))
    ]
    assert torch.equal(together, torch.cat(alone))


def test_pairs_of_logits_are_off_and_on():
    certain = torch.tensor([[[0.0, 9.0] * 6 + [9.0, 0.0] * 6]])
    for sampling in (Sampling(), Sampling(temperature=0)):
        bits = CODEC.draw(certain, sampling, generators(0))
        assert bits.tolist() == [[[True] * 6 + [False] * 6]]


def test_greedy_bits_use_no_randomness():
    (generator,) = generators(0)
    before = generator.get_state()
    bits = CODEC.draw(logits(1, 4), Sampling(temperature=0), [generator])
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(bits, logits(1, 4).unflatten(-1, (12, 2)).argmax(-1).bool())


def test_low_temperature_comes_close_to_greedy():
    cold = CODEC.draw(logits(1, 50), Sampling(temperature=0.001), generators(0))
    assert torch.equal(cold, CODEC.draw(logits(1, 50), Sampling(temperature=0), generators(0)))
    warm = CODEC.draw(logits(1, 50), Sampling(temperature=2), generators(0))
    assert not torch.equal(cold, warm)


@pytest.mark.parametrize("grid", [(2, 2), (4, 6)])
def test_drawn_bits_become_the_codes_whose_tokens_have_their_signs(grid):
    tokens = grid[0] * grid[1] // 4
    bits = CODEC.draw(logits(2, tokens), Sampling(), generators(1, 2))
    codes = CODEC.to_codes(bits, grid)
    assert codes.shape == (2, 3, *grid)
    assert torch.equal(CODEC.to_tokens(codes) > 0, bits)
    assert torch.equal(CODEC.to_tokens(codes), to_tokens(codes, 2))
