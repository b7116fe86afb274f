"""From a model's name or folder to a resolver on a device."""

from pathlib import Path

import torch

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.model import cast_for_inference
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.weights.catalog import find_model
from nsarm_cli.weights.folder import load_model
from nsarm_cli.weights.store import Store


def load_resolver(model: str, device: torch.device, dtype: torch.dtype) -> SuperResolver:
    """Load a model for inference.

    Args:
        model: a name of `weights.toml`, or a folder that `nsarm train` wrote.
        device: where it runs.
        dtype: of its convolutions and block weights.

    Raises:
        WeightsError: no such model, or its files are missing, damaged or of another model.
    """
    folder = _folder(model)
    loaded = load_model(folder).requires_grad_(requires_grad=False).eval()
    if not isinstance(loaded.conditioner, ConstantConditioner):
        raise WeightsError(
            f"{folder}: this model needs the features of a prompt, which the folder lacks; "
            "use a model without a text encoder"
        )
    return NsarmResolver(cast_for_inference(loaded.to(device), dtype))


def _folder(model: str) -> Path:
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists() or len(path.parts) > 1:
        raise WeightsError(
            f"{model}: is not a folder; give a known model's name or a folder of nsarm train"
        )
    folder = Store().runnable(find_model(model))
    if folder is None:
        raise WeightsError(
            f"model {model} is not ready to run on this machine; "
            "nsarm weights list shows what is missing"
        )
    return folder
