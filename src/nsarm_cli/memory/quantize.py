"""Store the matrices of a transformer's blocks in fewer bits, through torchao.

Embeddings, conditions, norms, biases, the head and all convolutions stay as they are.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import torch
from torch import nn

from nsarm_cli.errors import DeviceError
from nsarm_cli.memory.settings import Quantize
from nsarm_cli.models.core.memory import is_matrix

_INT4_GROUP = 128
_INT4_CAPABILITY = (8, 0)
_FP8_CAPABILITY = (8, 9)
_FP8_MULTIPLE = 16


def obstacle(kind: Quantize, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kind cannot be used, as the end of a sentence; None when it can."""
    if kind is Quantize.NONE:
        return None
    if find_spec("torchao") is None:
        return "it needs torchao, which is not installed; run pip install 'nsarm[quantize]'"
    if kind is Quantize.INT4 and (device.type != "cuda" or dtype != torch.bfloat16):
        return "its arithmetic exists for bf16 on a CUDA GPU alone; take int8, or --precision bf16"
    if kind is Quantize.INT4 and _is_before(_INT4_CAPABILITY, device):
        return "its arithmetic exists for NVIDIA GPUs since Ampere alone; take int8"
    if device.type == "mps":
        return "torchao does not support Apple GPUs; leave it out"
    return None


def multiplies_fp8(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products can be computed in fp8: in bf16 runs on NVIDIA GPUs since Ada and Hopper."""
    if device.type != "cuda" or dtype != torch.bfloat16 or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def _is_before(capability: tuple[int, int], device: torch.device) -> bool:
    """Whether an NVIDIA GPU is older; not of a card that is planned for and is not here."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) < capability


def usable(device: torch.device, dtype: torch.dtype) -> tuple[Quantize, ...]:
    """What may be chosen unasked: nothing, and the kinds that work here, the dearest last."""
    kinds = (Quantize.NONE, Quantize.INT8, Quantize.INT4)
    return tuple(kind for kind in kinds if obstacle(kind, device, dtype) is None)


def quantize_blocks(blocks: Iterable[nn.Module], kind: Quantize, device: torch.device) -> None:
    """Quantise the linear layers of blocks, in place and one block at a time.

    Args:
        blocks: anywhere; each visits the device while it is quantised and returns.
        kind: how.
        device: where the arithmetic is.

    Raises:
        DeviceError: this kind cannot be used here.
    """
    blocks = list(blocks)
    if kind is Quantize.NONE or not blocks:
        return
    dtype = next(m.weight.dtype for m in blocks[0].modules() if isinstance(m, nn.Linear))
    if reason := obstacle(kind, device, dtype):
        raise DeviceError(f"quantising to {kind} does not work here: {reason}")
    with _without_remarks():
        # Imported here: torchao takes a second, and most runs do not need it.
        from torchao import quantization as ao  # type: ignore[import-untyped]  # noqa: PLC0415

    match kind:
        case Quantize.INT8:
            config = ao.Int8WeightOnlyConfig(version=2)
        case Quantize.FP8 if multiplies_fp8(device, dtype):
            # Set no options of the compiler: they would hold for the whole process.
            config = ao.Float8DynamicActivationFloat8WeightConfig(
                granularity=ao.PerRow(), set_inductor_config=False
            )
        case Quantize.FP8:
            config = ao.Float8WeightOnlyConfig()
        case Quantize.INT4:
            config = ao.Int4WeightOnlyConfig(
                group_size=_INT4_GROUP, int4_packing_format="tile_packed_to_4d"
            )
    # Torchao asks the current GPU what it can.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for block in blocks:
            home = next(block.parameters()).device
            block.to(device)
            ao.quantize_(block, config, filter_fn=lambda module, _: _fits(module, kind))
            block.to(home)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep back what torchao says while it is imported, of parts for other machines."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _fits(module: nn.Module, kind: Quantize) -> bool:
    if not is_matrix(module):
        return False
    # Kernels want whole groups; a layer that has none stays as it is.
    if kind is Quantize.FP8:
        return module.in_features % _FP8_MULTIPLE == module.out_features % _FP8_MULTIPLE == 0
    return kind is not Quantize.INT4 or module.in_features % _INT4_GROUP == 0
