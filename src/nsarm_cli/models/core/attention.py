"""Attention of next-scale transformers: cosine self-attention, cross-attention, key-value cache.

Letters: b batch, l tokens, c width, n heads, e width of one head, m context tokens.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.rope import rotate

_LOG_100 = math.log(100)


def project(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer in the type its weights are stored in."""
    return linear(x.to(linear.weight.dtype))  # type: ignore[no-any-return]


@dataclass
class KeyValueCache:
    """Keys and values of every block for all tokens of a run, allocated once.

    Attributes:
        keys: "depth b n total e".
        values: the same.
        length: tokens already in it.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    @classmethod
    def allocate(
        cls,
        depth: int,
        batch: int,
        heads: int,
        total: int,
        head_width: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        """Room for `total` tokens in each of `depth` blocks."""
        shape = (depth, batch, heads, total, head_width)
        return cls(
            torch.empty(shape, device=device, dtype=dtype),
            torch.empty(shape, device=device, dtype=dtype),
        )

    def put(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write "b n l e" behind the tokens present; return all of them, "b n (length + l) e"."""
        end = self.length + keys.shape[2]
        self.keys[block, :, :, self.length : end] = keys
        self.values[block, :, :, self.length : end] = values
        return self.keys[block, :, :, :end], self.values[block, :, :, :end]


@dataclass
class WaitingCache(KeyValueCache):
    """A cache that lies elsewhere, of which one block's share visits where it is computed."""

    def put(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As in `KeyValueCache`; the results lie where `keys` and `values` do."""
        return (
            self._together(self.keys[block], keys),
            self._together(self.values[block], values),
        )

    def _together(self, kept: Tensor, new: Tensor) -> Tensor:
        end = self.length + new.shape[2]
        whole = new.new_empty(*new.shape[:2], end, new.shape[3])
        whole[:, :, : self.length].copy_(kept[:, :, : self.length], non_blocking=True)
        whole[:, :, self.length :] = new
        kept[:, :, self.length : end] = new
        return whole


@dataclass(frozen=True)
class AttentionPass:
    """What one pass over consecutive scales asks of self-attention.

    Attributes:
        batch: b.
        heads: n.
        head_width: e.
        lengths: tokens of each scale in the pass.
        before: tokens of earlier scales, which are in the cache.
        device: of the tokens.
        dtype: of the weights of linear layers.
    """

    batch: int
    heads: int
    head_width: int
    lengths: tuple[int, ...]
    before: int
    device: torch.device
    dtype: torch.dtype


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one pass: queries "b n l e", keys and values "b n (before + l) e" to "b n l e". A
token sees its own scale and all coarser ones; the products are logits as they are."""

PlanAttention = Callable[[AttentionPass], Attend]
"""Makes the attention of a pass, before its blocks run."""


def scale_by_scale(asked: AttentionPass) -> Attend:
    """Attention by one call of PyTorch's kernel per scale; see `block_causal_attention`."""
    return functools.partial(block_causal_attention, lengths=asked.lengths, scale=1.0)


def block_causal_attention(
    queries: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], scale: float
) -> Tensor:
    """Attention in which a token sees its own scale and all coarser ones.

    One call per scale needs no mask, so nothing of size l x l is ever stored.

    Args:
        queries: "b n l e" of the scales in `lengths`.
        keys: "b n (before + l) e"; the first `before` belong to earlier scales.
        values: like keys.
        lengths: tokens of each scale among the queries; their sum is l.
        scale: factor on the products.

    Returns:
        "b n l e".
    """
    before = keys.shape[2] - queries.shape[2]
    outputs = []
    start = 0
    for length in lengths:
        end = start + length
        seen = before + end
        outputs.append(
            F.scaled_dot_product_attention(
                queries[:, :, start:end], keys[:, :, :seen], values[:, :, :seen], scale=scale
            )
        )
        start = end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


class SelfAttention(nn.Module):
    """Cosine attention with a learned temperature per head and rotary positions.

    Queries and keys are unit vectors, so logits are bounded by the temperature, which is
    at most 100 (Swin v2, arXiv 2111.09883; used by VAR and Infinity).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.log_temperature = nn.Parameter(torch.full((heads,), math.log(4)))
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        rope: Tensor,
        attend: Attend,
        cache: KeyValueCache | None,
        block: int,
    ) -> Tensor:
        """Attend within "b l c".

        Args:
            x: tokens of consecutive scales.
            rope: "2 l (e/2)" of these tokens.
            attend: who sees whom among these scales and those in the cache.
            cache: holds the coarser scales and receives these; None when x begins at scale 0.
            block: index of this layer in the cache.

        Returns:
            "b l c".
        """
        qkv = rearrange(project(self.qkv, x), "b l (t n e) -> t b n l e", t=3, n=self.heads)
        biases = [
            rearrange(bias, "(n e) -> n 1 e", n=self.heads) for bias in (self.q_bias, self.v_bias)
        ]
        temperature = self.log_temperature.float().clamp(max=_LOG_100).exp()[:, None, None]
        queries = F.normalize(qkv[0].float() + biases[0], dim=-1, eps=1e-12) * temperature
        keys = F.normalize(qkv[1].float(), dim=-1, eps=1e-12)
        values = qkv[2] + biases[1].to(qkv.dtype)
        queries, keys = rotate(queries, rope).to(qkv.dtype), rotate(keys, rope).to(qkv.dtype)
        if cache is not None:
            keys, values = cache.put(block, keys, values)
        mixed = attend(queries, keys, values)
        return project(self.out, rearrange(mixed, "b n l e -> b l (n e)"))


class CrossAttention(nn.Module):
    """Attention from image tokens to context tokens, without positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values "b n m e" of "b m c"; the same for every scale, so made once."""
        keys, values = project(self.kv, context).chunk(2, dim=-1)
        values = values + self.v_bias.to(values.dtype)
        split = "b m (n e) -> b n m e"
        return rearrange(keys, split, n=self.heads), rearrange(values, split, n=self.heads)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Attend from "b l c" to the context; `mask` is "b 1 1 m", true where a token exists."""
        queries = rearrange(project(self.q, x), "b l (n e) -> b n l e", n=self.heads)
        mixed = F.scaled_dot_product_attention(queries, *keys_values, attn_mask=mask)
        return project(self.out, rearrange(mixed, "b n l e -> b l (n e)"))
