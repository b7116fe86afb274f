"""From a model's name or folder to a resolver on a device."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.core.memory import MemoryNeeds, Network
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.text.features import read_features
from nsarm_cli.text.needs import FLAN_T5_XL, encoder_network
from nsarm_cli.weights.folder import (
    FAMILIES,
    VARSR,
    Family,
    family_of,
    load_model,
    load_model_of,
    read_config,
    read_config_of,
)
from nsarm_cli.weights.identity import weights_identity
from nsarm_cli.weights.locate import locate, locate_config
from nsarm_cli.weights.mapped import leave_after_use
from nsarm_cli.weights.shards import shard_files

PROMPT_FILE = "prompt.safetensors"
"""In the folder of a model with text: features of the prompt that it runs under by default."""

TEXT_ENCODER = "text_encoder"
CONVERT_TEXT = "convert the weights together with their text encoder"
"""In the same folder: the folder of the text encoder and its tokenizer."""


def load_resolver(model: str, device: torch.device, dtype: torch.dtype) -> SuperResolver:
    """Load a model for inference.

    Args:
        model: a folder, a name of `weights.toml`, or `user/repo[@revision]` of the Hub.
        device: where it runs.
        dtype: of its convolutions and block weights.

    Raises:
        WeightsError: no such model, or its files are missing, damaged or of another model.
    """
    folder = locate(model)
    resolver = _load_resolver(folder, device, dtype)
    if device.type == "cpu":
        names = {module: name for name, module in resolver.model.named_modules()}
        leave_after_use({names[part]: part for part in resolver.visitors}, shard_files(folder))
    return resolver


def _load_resolver(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> NsarmResolver | VarsrResolver:
    if family_of(folder) == VARSR.name:
        if read_config_of(folder, VARSR).prefix is None:
            raise WeightsError(
                f"{folder}: makes pictures of classes and enlarges none; train a model that does "
                f"from it, with nsarm train varsr and base_from = {str(folder)!r}, or take another"
            )
        varsr = load_model_of(folder, VARSR, device, dtype)
        return VarsrResolver(varsr.requires_grad_(requires_grad=False).eval())
    width = read_config(folder).text_width
    prompt = None if width is None else _fixed_prompt(folder, width)
    loaded = load_model(folder, device, dtype).requires_grad_(requires_grad=False).eval()
    return NsarmResolver(loaded) if prompt is None else NsarmTextResolver(loaded, prompt)


def _fixed_prompt(folder: Path, width: int) -> Tensor:
    path = folder / PROMPT_FILE
    if not path.is_file():
        raise WeightsError(
            f"{folder}: this model needs the features of a prompt, but {PROMPT_FILE} is missing; "
            "convert the weights again"
        )
    return read_features(path, width)


def text_width(model: str) -> int | None:
    """Width of the prompt features that a model takes; None for a model without text.

    Raises:
        WeightsError: no such model, or its configuration is missing or damaged.
    """
    family, config = _described(model)
    return family.text_width(config)


def model_identity(model: str) -> str | None:
    """Name the weights of a model (see `weights_identity`); None where they cannot be read."""
    try:
        return weights_identity(locate(model))
    except (OSError, WeightsError):
        return None


def load_text_encoder(
    model: str, device: torch.device, dtype: torch.dtype, remedy: str = CONVERT_TEXT
) -> TextEncoder:
    """Load the text encoder that belongs to a model; see `TextEncoder.load`.

    Raises:
        WeightsError: the model has none, or its files are damaged.
    """
    folder = locate(model, text=True)
    encoder = TextEncoder.load(folder / TEXT_ENCODER, device, dtype, remedy=remedy)
    if encoder.width != read_config(folder).text_width:
        raise WeightsError(
            f"{folder / TEXT_ENCODER}: is the text encoder of another model (its features have "
            f"{encoder.width} numbers); put the one there that the weights were made with"
        )
    return encoder


def memory_needs(model: str) -> MemoryNeeds:
    """What a model needs in memory; the weights of a known one need not be on this machine.

    Raises:
        WeightsError: no such model, or its configuration is missing or damaged.
    """
    family, config = _described(model)
    return family.needs(config)


def _described(model: str) -> tuple[Family[Any, Any], Any]:
    """Family and configuration of a model, whether or not its weights are here."""
    if not Path(model).is_dir():
        for family in FAMILIES.values():
            if model in family.presets:
                return family, family.presets[model]
    folder = locate_config(model)
    family = FAMILIES[family_of(folder)]
    return family, read_config_of(folder, family)


def text_encoder_network(model: str) -> Network:
    """What the text encoder of a model needs: by its files in a folder, else the published one's.

    Raises:
        WeightsError: its configuration is damaged.
    """
    path = Path(model) / TEXT_ENCODER / "config.json"
    if not path.is_file():
        return encoder_network(FLAN_T5_XL)
    try:
        return encoder_network(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(
            f"{path}: describes no T5 text encoder ({error}); get its files again"
        ) from error
