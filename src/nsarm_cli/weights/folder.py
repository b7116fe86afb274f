"""A model folder: `config.json` and `model.safetensors`, loaded strictly."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.weights.strict import load_strictly

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def read_config(folder: Path) -> NsarmConfig:
    """Read the configuration of a model folder.

    Raises:
        WeightsError: the file is missing, not JSON, or describes no known model.
    """
    path = folder / CONFIG_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        family = values["family"]
        if family != "nsarm":
            raise WeightsError(f'{path}: family "{family}" is unknown; known is "nsarm"')
        return NsarmConfig.from_dict(values["config"])
    except OSError as error:
        raise WeightsError(
            f"{folder}: is not a model folder ({CONFIG_FILE}: {error.strerror}); "
            "give a folder written by nsarm train or a known model's name"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise _no_model(path, error) from error


def load_model(folder: Path) -> NsarmModel:
    """Build the model of a folder with its weights, in float32 unless stored otherwise.

    The model is built without memory and takes the tensors of the file as they are.

    Raises:
        WeightsError: a file is missing or damaged, or the tensors are not the model's.
    """
    config = read_config(folder)
    try:
        with torch.device("meta"):
            model = NsarmModel(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise _no_model(folder / CONFIG_FILE, error) from error
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({error}); get the file again"
        ) from error
    load_strictly(model, {k: t.float() for k, t in tensors.items()}, str(path))
    return model


def _no_model(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: does not describe a model ({error}); write it again with nsarm train"
    )
