"""LoRA: small matrices beside the large ones learn, and are added to them at export.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685); the layers
are those of PEFT. The paper of NSARM trains everything; this is our addition, for those who
have one card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference

ADAPTER_FILE = "adapter.safetensors"
"""Name of the learned matrices in the folder of a run."""

_LARGE = r"blocks\.\d+\.(attention\.(qkv|out)|cross\.(q|kv|out)|feed_forward\.(up|down))"
_MARK = "lora_"
_ADAPTER = "default"


def adapt(model: NsarmModel, rank: int, scale: float, base: torch.dtype) -> None:
    """Freeze a model and put trainable matrices beside those of its transformer's blocks.

    What a layer gives does not change, since one of its two new matrices is zero.

    Args:
        model: changed in place; its transformer's layers become PEFT's.
        rank: of the product of the two new matrices.
        scale: factor on their product.
        base: type that the frozen weights are kept in; the new ones are float32.

    Raises:
        ConfigError: PEFT is not installed.
    """
    peft = _peft()
    model.requires_grad_(requires_grad=False)
    if base != torch.float32:
        cast_for_inference(model, base)
    config = peft.LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=_LARGE)
    peft.inject_adapter_in_model(config, model.transformer, _ADAPTER)
    for parameter in model.transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapter_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The learned matrices among the weights of an adapted model."""
    return {name: tensor for name, tensor in weights.items() if _MARK in name}


def merge(model: NsarmModel, adapter: Path) -> None:
    """Load learned matrices into an adapted model, add them to the weights, and take them out.

    Raises:
        ConfigError: the file cannot be read or belongs to another model.
    """
    wanted = adapter_of(model.state_dict())
    try:
        with safe_open(adapter, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{adapter}: cannot be read ({error}); train again") from error
    shapes = {name: tensor.shape for name, tensor in found.items()}
    if shapes != {name: tensor.shape for name, tensor in wanted.items()}:
        raise ConfigError(
            f"{adapter}: belongs to another model or rank; use the settings it was made with"
        )
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)
    layer: Any = _peft().tuners.lora.LoraLayer
    for parent in list(model.transformer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, layer):
                plain: nn.Module = child.get_base_layer()
                learned = child.get_delta_weight(_ADAPTER).float()
                # Rounded once, where the weights are kept in a narrow type.
                plain.weight.data = (plain.weight.float() + learned).to(plain.weight.dtype)
                setattr(parent, name, plain)


def _peft() -> Any:
    try:
        import peft  # noqa: PLC0415  (an extra)
        import peft.tuners.lora  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"lora needs PEFT, which is not installed ({error.name}); pip install 'nsarm[train]'"
        ) from error
    return peft
