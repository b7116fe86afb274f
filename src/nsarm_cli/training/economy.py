"""Less memory by computing activations twice, and more speed by compiling: block by block.

Both change the `forward` of single blocks and nothing else, so names of parameters, hooks of
sharding and what is computed stay as they are. Without gradients, as in validation, the blocks
run as they always do. The same holds of another attention.
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.block import Block
from nsarm_cli.models.core.compiled import Forward, compiled_forward
from nsarm_cli.models.core.convolution import ResidualBlock
from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.models.varsr.refiner import RefinerBlock

UNITS = (Block, nn.TransformerEncoderLayer, ResidualBlock, RefinerBlock)
"""What is computed again, or compiled, as a whole."""

_KEPT = (
    *("mm", "addmm", "bmm", "convolution", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    "_scaled_dot_product_flash_attention_for_cpu",
)
KEPT = frozenset(getattr(torch.ops.aten, name).default for name in _KEPT)
"""Results that the policy "selective" keeps: they are what is dear to compute."""


def economise(
    trained: nn.Module, recompute: str, *, compiled: bool, backend: str = "inductor"
) -> None:
    """Make the blocks of a module recompute their activations, compile them, or both.

    Args:
        trained: what is trained; its blocks are those of `UNITS`.
        recompute: "none" keeps all activations for the backward pass; "full" keeps a block's
            input and computes the rest again; "selective" keeps the results of matrix products,
            convolutions and attention too, and computes only what is cheap again.
        compiled: compile each transformer block with torch.compile, once for all of them.
        backend: of torch.compile.
    """
    for unit in trained.modules():
        if not isinstance(unit, UNITS):
            continue
        plain = unit.forward
        forward: Forward = plain
        if compiled and isinstance(unit, Block):
            forward = compiled_forward(unit, backend)
        if recompute != "none":
            forward = _recomputed(forward, recompute)
        if forward is not plain:
            # On the object, not its class: the next model of this process is not concerned.
            object.__setattr__(unit, "forward", _only_with_gradients(forward, plain))


def let_caches_wait(module: nn.Module) -> None:
    """Keep keys and values in the memory of the machine while a model samples for validation."""
    for part in module.modules():
        if isinstance(part, NextScaleTransformer):
            part.cache_home = torch.device("cpu")


def choose_attention(trained: nn.Module, attention: str, device: torch.device) -> None:
    """Let the passes of training go through the attention that the settings name.

    Args:
        trained: what is trained, with a transformer if `attention` is "flex".
        attention: "sdpa" or "flex"; see `RunConfig`.
        device: where it is trained.

    Raises:
        ConfigError: FlexAttention cannot be used there.
    """
    if attention == "sdpa":
        return
    from nsarm_cli.models.core.flex import LEAST_WIDTH, FlexAttention  # noqa: PLC0415  (slow)

    transformers = [m for m in trained.modules() if isinstance(m, NextScaleTransformer)]
    if not transformers:
        raise ConfigError(
            'attention is "flex", but this stage trains no transformer; leave the setting out'
        )
    if device.type != "cuda":
        raise ConfigError(
            'attention is "flex", but FlexAttention learns on CUDA GPUs alone and this run is on '
            f'{device.type}; set attention = "sdpa", or train with --device cuda'
        )
    for transformer in transformers:
        width = transformer.config.width // transformer.config.heads
        if width < LEAST_WIDTH:
            raise ConfigError(
                f'attention is "flex", but heads are {width} numbers wide and FlexAttention takes '
                f'{LEAST_WIDTH} and more; set attention = "sdpa"'
            )
        transformer.plan_attention = FlexAttention()


def _only_with_gradients(forward: Forward, plain: Forward) -> Forward:
    @functools.wraps(plain)
    def run(*arguments: Any, **named: Any) -> Any:
        return (forward if torch.is_grad_enabled() else plain)(*arguments, **named)

    return run


def _recomputed(forward: Forward, policy: str) -> Forward:
    options: dict[str, Any] = {"use_reentrant": False}
    if policy == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep)
    return functools.partial(checkpoint, forward, **options)


def _keep(_context: Any, operation: Any, *_arguments: Any, **_named: Any) -> CheckpointPolicy:
    kept = operation in KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
