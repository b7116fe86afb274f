"""Write model folders: what `nsarm upscale --model` reads."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nsarm_cli.training.atomic import write_text_atomically
from nsarm_cli.training.checkpoint import save_atomically
from nsarm_cli.weights.folder import CONFIG_FILE, AnyConfig, AnyModel
from nsarm_cli.weights.shards import WEIGHTS_FILE

AVERAGE_FILE = "average.safetensors"
"""Name of the averaged weights in the folder of a run that keeps them."""


def write_model(model: AnyModel, folder: Path, config: AnyConfig | None = None) -> None:
    """Write weights and configuration.

    Raises:
        ConfigError: the folder cannot be written.
    """
    write_weights(model.state_dict(), config or model.config, folder)


def write_weights(weights: Mapping[str, Tensor], config: AnyConfig, folder: Path) -> None:
    """Write a model that is not at hand as a module.

    Raises:
        ConfigError: the folder cannot be written.
    """
    save_atomically(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    write_configuration(config, folder)


def write_configuration(config: AnyConfig, folder: Path) -> None:
    """Write the configuration alone, for a folder that holds what belongs to another's weights.

    Raises:
        ConfigError: the folder cannot be written; an old configuration is as it was.
    """
    text = json.dumps({"family": config.family, "config": config.to_dict()}, indent=2)
    write_text_atomically(text + "\n", folder / CONFIG_FILE)
