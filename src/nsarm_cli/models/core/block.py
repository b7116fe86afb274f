"""One transformer block: self-attention, optional cross-attention, feed-forward.

Each branch works on adaptively normalised input (DiT, arXiv 2212.09748): a vector per
sample gives the scale, the shift and the gate of both branches.

Letters: b batch, l tokens, c width, m context tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.attention import (
    Attend,
    CrossAttention,
    KeyValueCache,
    SelfAttention,
    project,
)

EPS = 1e-6


class Modulation(nn.Linear):
    """Gates, scales and shifts of a pooled condition, for one block or for all (DiT, PixArt)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 6 * width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return "b 1 6 c", float32, of "b c"."""
        active = F.silu(pooled).to(self.weight.dtype)
        made = F.linear(active, self.weight, self.bias).float()
        return rearrange(made, "b (six c) -> b 1 six c", six=6)


class SharedModulation(nn.Module):
    """A learned offset per block on a signal that all blocks share (PixArt's AdaLN-single)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1, 1, 6, width))

    def forward(self, signal: Tensor) -> Tensor:
        """Add the offset to "b 1 6 c"."""
        return signal + self.offset.float()


class FeedForward(nn.Module):
    """Two linear layers with tanh-approximated GELU; the hidden width is a multiple of 256."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, round(width * ratio / 256)) * 256
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return "b l c"."""
        return project(self.down, F.gelu(project(self.up, x), approximate="tanh"))


@dataclass(frozen=True)
class BlockContext:
    """What a block needs besides its tokens.

    Attributes:
        signal: input of the modulation; its form is the modulation's affair.
        rope: "2 l (e/2)".
        attend: self-attention of the scales in this call.
        cache: keys and values of coarser scales, or None.
        text: keys and values of each block's cross-attention, or None.
        text_mask: "b 1 1 m", or None when all context tokens exist.
    """

    signal: Tensor
    rope: Tensor
    attend: Attend
    cache: KeyValueCache | None
    text: Sequence[tuple[Tensor, Tensor]] | None
    text_mask: Tensor | None


class Block(nn.Module):
    """x += g1 SA(norm x); x += CA(norm x); x += g2 FFN(norm x).

    Args:
        modulation: maps the signal to gates, scales and shifts, "b 1 6 c" in the order
            gate 1, gate 2, scale 1, scale 2, shift 1, shift 2.
        attention: self-attention.
        cross: cross-attention, or None where the model has no context.
        feed_forward: per-token network.
        width: c.
    """

    def __init__(
        self,
        modulation: nn.Module,
        attention: SelfAttention,
        cross: CrossAttention | None,
        feed_forward: FeedForward,
        width: int,
    ) -> None:
        super().__init__()
        self.modulation = modulation
        self.attention = attention
        self.cross = cross
        self.cross_norm = None if cross is None else nn.LayerNorm(width, eps=EPS)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, context: BlockContext, index: int) -> Tensor:
        """Process "b l c" in float32; `index` is the block's place in cache and text."""
        gate1, gate2, scale1, scale2, shift1, shift2 = self.modulation(context.signal).unbind(2)
        normed = modulate(x, scale1, shift1)
        mixed = self.attention(normed, context.rope, context.attend, context.cache, index)
        x = x + gate1 * mixed.float()
        if self.cross is not None and self.cross_norm is not None:
            if context.text is None:
                raise ValueError("this model needs context tokens")
            weight, bias = self.cross_norm.weight.float(), self.cross_norm.bias.float()
            normed = F.layer_norm(x, x.shape[-1:], weight, bias, EPS)
            x = x + self.cross(normed, context.text[index], context.text_mask).float()
        return x + gate2 * self.feed_forward(modulate(x, scale2, shift2)).float()  # type: ignore[no-any-return]


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise "b l c" without learned gain, then scale and shift by "b 1 c"."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift
