"""Transformer blocks through torch.compile: one compiled function for all blocks of a model.

Shapes are static, so each pass of the loop over scales has a function of its own, in which norms,
modulation, rotary positions and casts are fused. It is compiled at the first picture.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nsarm_cli.models.core.attention import KeyValueCache
from nsarm_cli.models.core.block import Block, BlockContext

Forward = Callable[..., Any]

_PASSES = 64
"""Most functions per process: a schedule has up to ten passes, for each size of a batch."""


def compile_blocks(blocks: Sequence[Block], backend: str = "inductor") -> None:
    """Let blocks run through compiled functions from now on.

    Args:
        blocks: of one transformer; names of their parameters and their hooks stay.
        backend: of torch.compile.
    """
    from torch._dynamo import config  # noqa: PLC0415  (takes a second)

    config.recompile_limit = max(_PASSES, config.recompile_limit)
    for block in blocks:
        object.__setattr__(block, "forward", compiled_forward(block, backend))


def compiled_forward(block: Block, backend: str = "inductor") -> Forward:
    """A block's `forward` as a compiled function, which is the same one for all blocks."""
    call = torch.compile(_call, backend=backend, dynamic=False)

    def run(x: Tensor, context: BlockContext, index: int) -> Tensor:
        # The number of a block would be compiled in, and each block compiled anew.
        text = None if context.text is None else [context.text[index]]
        cache = None if context.cache is None else _own(context.cache, index)
        return call(block, x, dataclasses.replace(context, text=text, cache=cache))

    return run


def _own(cache: KeyValueCache, index: int) -> KeyValueCache:
    keys, values = cache.keys[index : index + 1], cache.values[index : index + 1]
    return dataclasses.replace(cache, keys=keys, values=values)


def _call(block: Block, x: Tensor, context: BlockContext) -> Tensor:
    return type(block).forward(block, x, context, 0)
