"""From a model's name or folder to a resolver on a device."""

from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.text.features import read_features
from nsarm_cli.weights.folder import (
    VARSR,
    family_of,
    load_model,
    load_model_of,
    read_config,
)
from nsarm_cli.weights.identity import weights_identity
from nsarm_cli.weights.locate import locate

PROMPT_FILE = "prompt.safetensors"
"""In the folder of a model with text: features of the prompt that it runs under by default."""

TEXT_ENCODER = "text_encoder"
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
    if family_of(folder) == VARSR.name:
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
    folder = locate(model)
    return None if family_of(folder) == VARSR.name else read_config(folder).text_width


def model_identity(model: str) -> str | None:
    """Name the weights of a model (see `weights_identity`); None where they cannot be read."""
    try:
        return weights_identity(locate(model))
    except (OSError, WeightsError):
        return None


def load_text_encoder(model: str, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load the text encoder that belongs to a model; see `TextEncoder.load`.

    Raises:
        WeightsError: the model has none, or its files are damaged.
    """
    folder = locate(model, text=True)
    encoder = TextEncoder.load(folder / TEXT_ENCODER, device, dtype)
    if encoder.width != read_config(folder).text_width:
        raise WeightsError(
            f"{folder / TEXT_ENCODER}: is the text encoder of another model (its features have "
            f"{encoder.width} numbers); put the one there that the weights were made with"
        )
    return encoder
