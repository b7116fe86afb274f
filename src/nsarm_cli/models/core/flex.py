"""Block-causal self-attention in one kernel, through PyTorch's FlexAttention (arXiv 2412.05496).

Which blocks of tokens see which follows from the numbers of their scales, so the table of blocks is
made without ever looking at single tokens: for l tokens it holds some (l / 128)^2 entries.

Letters: b batch, l tokens, n heads, e width of one head, r rows of blocks.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from nsarm_cli.models.core.attention import Attend, AttentionPass, scale_by_scale

BLOCK = 128
"""Tokens per side of a block; what FlexAttention's kernels are made for."""

LEAST_WIDTH = 16
"""The narrowest head that these kernels take."""

_SHAPES = 64
"""Most kernels per process: one for each aspect ratio, size of a batch and type."""


class FlexAttention:
    """A `PlanAttention` that computes a pass over all scales with FlexAttention.

    That is a pass of training: with gradients, and without a cache. All others are computed scale
    by scale. A mask is made once per schedule. Backward passes exist on CUDA GPUs alone.

    Args:
        backend: of torch.compile, without which FlexAttention stores all products.
    """

    def __init__(self, backend: str = "inductor") -> None:
        from torch._dynamo import config  # noqa: PLC0415  (takes a second)

        config.recompile_limit = max(_SHAPES, config.recompile_limit)
        self._kernel = torch.compile(flex_attention, backend=backend, dynamic=False)
        self._masks: dict[tuple[tuple[int, ...], torch.device], BlockMask] = {}

    def __call__(self, asked: AttentionPass) -> Attend:
        """Attention of a pass."""
        if asked.before or not torch.is_grad_enabled():
            return scale_by_scale(asked)
        key = asked.lengths, asked.device
        if key not in self._masks:
            self._masks[key] = block_causal_mask(*key)
        return functools.partial(_attend, self._kernel, self._masks[key])


def _attend(
    kernel: Callable[..., Any], mask: BlockMask, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    return kernel(queries, keys, values, block_mask=mask, scale=1.0)  # type: ignore[no-any-return]


def block_causal_mask(
    lengths: Sequence[int], device: torch.device, block: int = BLOCK
) -> BlockMask:
    """The mask in which a token sees its own scale and all coarser ones.

    The same as `create_block_mask` makes of a mask of all tokens by all tokens, without that mask.

    Args:
        lengths: tokens of each scale.
        device: of the mask.
        block: tokens per side of a block.
    """
    of_token = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    total = len(of_token)
    starts = torch.arange(0, total, block)
    is_whole = starts + block <= total
    # Tokens lie by scale, so the first and the last of a block tell of all between.
    first, last = of_token[starts], of_token[(starts + block - 1).clamp(max=total - 1)]
    seen = last[:, None] >= first
    entirely = (first[:, None] >= last) & is_whole[:, None] & is_whole
    scales = of_token.to(device, torch.int32)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return scales[query] >= scales[key]

    return BlockMask.from_kv_blocks(
        *_listed(seen & ~entirely, device),
        *_listed(entirely, device),
        BLOCK_SIZE=block,
        mask_mod=sees,
        seq_lengths=(total, total),
    )


def _listed(table: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many blocks each row of "r r" has, and their numbers first, as "1 1 r" and "1 1 r r"."""
    counts = table.sum(-1).to(device, torch.int32)
    numbers = table.int().argsort(dim=-1, descending=True, stable=True).to(device, torch.int32)
    return counts[None, None], numbers[None, None]
