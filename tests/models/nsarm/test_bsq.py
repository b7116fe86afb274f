import math

import pytest
import torch
import torch.nn.functional as F

from nsarm_cli.models.nsarm import bsq


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))


def test_bits_survive_the_way_through_codes(latents):
    bits = latents > 0
    assert torch.equal(bsq.latents_to_bits(bsq.bits_to_codes(bits)), bits)


def test_codes_are_the_nearest_corners_of_the_unit_sphere(latents):
    codes = bsq.quantise(latents)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(2, 4, 6))
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5) / math.sqrt(5)
    nearest = corners[torch.einsum("bdhw,nd->bhwn", latents, corners).argmax(-1)]
    torch.testing.assert_close(codes, nearest.permute(0, 3, 1, 2))


def test_quantising_twice_changes_nothing(latents):
    codes = bsq.quantise(latents)
    assert torch.equal(bsq.quantise(codes), codes)


def test_zero_has_no_bit():
    assert not bsq.latents_to_bits(torch.zeros(1, 3, 1, 1)).any()
    assert not bsq.latents_to_bits(-torch.zeros(1, 3, 1, 1)).any()


@pytest.mark.parametrize("patch", [1, 2])
def test_tokens_go_back_to_latents_bits_and_codes(latents, patch):
    for x in (latents, latents > 0):
        tokens = bsq.to_tokens(x, patch)
        assert tokens.shape == (2, 24 // patch**2, 5 * patch**2)
        assert torch.equal(bsq.from_tokens(tokens, patch, 4 // patch), x)


def test_a_token_has_its_block_of_latents_channel_by_channel(latents):
    tokens = bsq.to_tokens(latents, 2)
    assert torch.equal(tokens, F.pixel_unshuffle(latents, 2).flatten(2).mT)
    row, column, channel = 1, 2, 3
    block = latents[0, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert torch.equal(tokens[0, row * 3 + column, 4 * channel : 4 * channel + 4], block.flatten())


def test_the_straight_through_value_is_the_code_and_its_gradient_the_latents(latents):
    with torch.enable_grad():
        x = latents.clone().requires_grad_()
        through = bsq.straight_through(x, bsq.quantise(x))
        (3 * through).sum().backward()
    torch.testing.assert_close(through.detach(), bsq.quantise(latents))
    assert torch.equal(x.grad, torch.full_like(x, 3))


def test_entropy_is_in_bits_per_bit():
    """Sure and balanced bits are ideal: no entropy each, one bit over all samples."""
    sure = torch.tensor([1.0, -1.0]).repeat(8).reshape(1, 1, 4, 4) * 1e4
    each, overall = bsq.entropy_terms(sure, 1.0)
    assert each < 1e-3
    assert overall == pytest.approx(1, abs=1e-4)
    each, overall = bsq.entropy_terms(torch.zeros(1, 3, 4, 4), 1.0)
    assert (each.item(), overall.item()) == (pytest.approx(1), pytest.approx(1))
    _, unused = bsq.entropy_terms(torch.full((1, 3, 4, 4), 1e4), 1.0)
    assert unused < 1e-3
