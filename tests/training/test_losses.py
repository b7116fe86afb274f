"""Losses agree with their definitions."""

import pytest
import torch
import torch.nn.functional as F

from nsarm_cli.training.losses import bit_cross_entropy, preliminary_loss, token_weights


def test_bit_cross_entropy_is_the_two_way_one_of_each_pair():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 12, generator=generator)
    bits = torch.rand(2, 5, 6, generator=generator) < 0.5
    wanted = F.cross_entropy(logits.reshape(-1, 2), bits.flatten().long(), reduction="none")

    made = bit_cross_entropy(logits, bits)

    assert made.shape == (2, 5)
    torch.testing.assert_close(made, wanted.view(2, 5, 6).mean(-1))


def test_its_gradient_is_the_same_too():
    logits = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))
    bits = torch.tensor([[[0, 1, 1, 0]] * 3])
    one, two = (logits.clone().requires_grad_() for _ in range(2))
    bit_cross_entropy(one, bits.bool()).sum().backward()
    (F.cross_entropy(two.view(-1, 2), bits.flatten(), reduction="sum") / 4).backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_it_stays_finite_where_the_model_is_sure():
    logits = torch.tensor([[[-1e4, 1e4, 1e4, -1e4]]], dtype=torch.bfloat16)
    right, wrong = torch.tensor([[[True, False]]]), torch.tensor([[[False, True]]])
    assert bit_cross_entropy(logits, right).tolist() == [[0.0]]
    assert bit_cross_entropy(logits, wrong).isfinite().all()


@pytest.mark.parametrize("reweight", [False, True])
def test_token_weights_sum_to_one(reweight):
    weights = token_weights([1, 4, 64, 400], reweight)
    assert weights.shape == (469,)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)


def test_tokens_weigh_alike_or_by_the_side_of_their_scale():
    alike, by_side = token_weights([4, 64], False), token_weights([4, 64], True)
    assert torch.equal(alike, torch.full((68,), 1 / 68))
    # Sides 2 and 8: 4 tokens of 1/2 and 64 of 1/8.
    torch.testing.assert_close(by_side[:4].sum() / by_side[4:].sum(), torch.tensor(2 / 8))


def test_the_preliminary_loss_is_the_mean_over_all_numbers_of_all_scales():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 1, 1), (2, 3, 4, 4)]
    predicted, targets = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
    flat = [torch.cat([t.flatten() for t in side]) for side in (predicted, targets)]
    torch.testing.assert_close(preliminary_loss(predicted, targets), F.mse_loss(*flat))


def test_a_scale_too_many_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        preliminary_loss([torch.zeros(1)] * 2, [torch.zeros(1)])
