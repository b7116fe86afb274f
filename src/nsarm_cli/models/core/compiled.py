"""Networks through torch.compile: one compiled function for all transformer blocks of a model.

Shapes are static, so each pass of the loop over scales has a function of its own, in which norms,
modulation, rotary positions and casts are fused. It is compiled at the first picture.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


def compile_network(network: nn.Module, backend: str = "inductor") -> None:
    """Let a convolutional network run through a compiled function, channels last in memory.

    Its `forward` alone is compiled: hooks may bring weights that wait elsewhere, and a compiler
    that traced them would compile anew for each copy.

    Args:
        network: run through its `forward`; hooks and names of parameters stay.
        backend: of torch.compile.
    """
    for tensor in network.parameters():
        tensor.data = _channels_last(tensor.data)
    compiled = torch.compile(network.forward, backend=backend, dynamic=False)
    object.__setattr__(network, "forward", compiled)


def _channels_last(tensor: Tensor) -> Tensor:
    """Kernels "k c h w" with channels last; what is pinned stays where it is pinned."""
    if tensor.ndim != 4 or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    ordered = tensor.contiguous(memory_format=torch.channels_last)
    if tensor.device.type != "cpu" or not tensor.is_pinned():
        return ordered
    return tensor.as_strided(tensor.shape, ordered.stride()).copy_(ordered)


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
