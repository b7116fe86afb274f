"""The model that a run starts from: a preset or a folder, with parts of other folders."""

from pathlib import Path

import torch

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.config import PRESETS, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.config import PartsConfig
from nsarm_cli.training.initialise import initialise
from nsarm_cli.weights.folder import load_model, read_config
from nsarm_cli.weights.parts import load_part


def starting_config(config: PartsConfig) -> NsarmConfig:
    """The configuration of the model that a run starts from, without its weights.

    Raises:
        ConfigError: `model` is neither a preset nor a folder.
        WeightsError: the folder has no configuration.
    """
    if config.model in PRESETS:
        return PRESETS[config.model]
    if Path(config.model).is_dir():
        return read_config(Path(config.model))
    raise ConfigError(
        f"{config.model}: neither a model folder nor one of the presets {', '.join(PRESETS)}; run "
        "the stage that makes it first, or name another start with --model"
    )


def starting_model(config: PartsConfig, dtype: torch.dtype | None = None) -> NsarmModel:
    """A preset with fresh weights or the model of a folder, then the parts that others give.

    Args:
        config: of the run.
        dtype: of weights that are not to be trained; None gives float32 throughout. Weights of a
            folder that are stored so are not even read before they are used.

    Raises:
        ConfigError: `model` is neither.
        WeightsError: a folder's weights cannot be loaded or are of another shape.
    """
    torch.manual_seed(config.seed)
    if config.model in PRESETS:
        model = initialise(NsarmModel(PRESETS[config.model]))
    else:
        starting_config(config)
        model = load_model(Path(config.model), dtype=dtype)
    if config.autoencoder_from:
        load_part(model.autoencoder, Path(config.autoencoder_from), "autoencoder")
    if config.transformation_from:
        load_part(model.transformation, Path(config.transformation_from), "transformation")
    if config.transformer_from:
        load_part(model.transformer, Path(config.transformer_from), "transformer")
        load_part(model.conditioner, Path(config.transformer_from), "conditioner")
    return model
