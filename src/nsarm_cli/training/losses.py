"""Losses of the two stages.

Letters: b batch, l tokens, n bits per token.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def preliminary_loss(predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean squared error over all numbers of all preliminary scales (Eq. 4)."""
    total = predicted[0].new_zeros(())
    count = 0
    for prediction, target in zip(predicted, targets, strict=True):
        total = total + F.mse_loss(prediction, target, reduction="sum")
        count += target.numel()
    return total / count


def bit_cross_entropy(logits: Tensor, bits: Tensor) -> Tensor:
    """Two-way cross-entropy of each token, averaged over its bits (Eq. 6).

    Args:
        logits: "b l (n 2)", pairs (bit is 0, bit is 1).
        bits: "b l n".

    Returns:
        "b l", in nats.
    """
    pairs = rearrange(logits.float(), "b l (n two) -> b l n two", two=2)
    margin = pairs[..., 1] - pairs[..., 0]
    return F.binary_cross_entropy_with_logits(margin, bits.float(), reduction="none").mean(-1)


def token_weights(lengths: Sequence[int], reweight: bool) -> Tensor:
    """Weight "l" of each token, summing to 1: alike, or by 1/side of its scale."""
    each = torch.tensor(lengths)
    sizes = each.repeat_interleave(each, output_size=sum(lengths)).float()
    weights = sizes.rsqrt() if reweight else torch.ones_like(sizes)
    return weights / weights.sum()
