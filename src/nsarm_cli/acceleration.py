"""Compiling a model for many pictures: slower to begin, quicker from then on."""

from typing import Any

import torch
from torch import nn

from nsarm_cli.memory.placement import Offloadable
from nsarm_cli.models.core.block import Block
from nsarm_cli.models.core.compiled import compile_blocks
from nsarm_cli.models.interface import SuperResolver


def accelerate(resolver: SuperResolver, device: torch.device, backend: str = "inductor") -> None:
    """Let a model's networks run through torch.compile from now on.

    The result differs by rounding, as after a change of the device. Transformer blocks are
    compiled everywhere. Convolutional networks are compiled, with channels last in memory, on a
    CUDA GPU alone: on a processor there is nothing to gain (see docs/performance.md), and group
    norm there loses digits with channels last.

    Args:
        resolver: a model, loaded and placed.
        device: where it runs.
        backend: of torch.compile.
    """
    networks: list[nn.Module] = []
    blocks: list[Block] = []
    if isinstance(resolver, Offloadable):
        networks = list(resolver.visitors) if device.type == "cuda" else []
        blocks = [module for module in resolver.transformer.modules() if isinstance(module, Block)]
    compile_blocks(blocks, backend)
    options: dict[str, Any] = {"backend": backend, "dynamic": False}
    for network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.compile(**options)
