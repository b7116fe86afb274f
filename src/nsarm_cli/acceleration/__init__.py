"""Compiling a model for many pictures: slower to begin, quicker from then on."""

from functools import partial

import torch
from torch import nn

from nsarm_cli.acceleration.attention import MeasuredAttention, cuda_seconds
from nsarm_cli.acceleration.graphs import CudaGraphs
from nsarm_cli.memory.placement import Offloadable
from nsarm_cli.models.core.block import Block
from nsarm_cli.models.core.compiled import compile_blocks, compile_network
from nsarm_cli.models.core.recorded import RecordedPasses
from nsarm_cli.models.interface import SuperResolver


def accelerate(resolver: SuperResolver, device: torch.device, backend: str = "inductor") -> None:
    """Let a model's networks run through torch.compile from now on.

    The result differs by rounding, as after a change of the device. Transformer blocks are
    compiled everywhere. On a CUDA GPU alone, their passes become CUDA graphs, attention takes the
    kernel that is quickest there, and convolutional networks are compiled too, with channels last
    in memory: on a processor there is nothing to gain (see docs/performance.md), and group norm
    there loses digits with channels last.

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
        if device.type == "cuda":
            resolver.transformer.plan_attention = MeasuredAttention(partial(cuda_seconds, device))
            RecordedPasses.install(resolver.transformer, partial(CudaGraphs, device))
    compile_blocks(blocks, backend)
    for network in networks:
        compile_network(network, backend)
