"""The VARSR model that a run starts from: a preset or a folder, with another's tokenizer."""

import math
from pathlib import Path

import torch
from torch import nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.attention import SelfAttention
from nsarm_cli.models.core.block import FeedForward, Modulation
from nsarm_cli.models.varsr.config import PRESETS, VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.weights.folder import VARSR, load_model_of, read_config_of
from nsarm_cli.weights.parts import load_part

_GATES = 1e-4
"""Share of the usual size that the gates of blocks start with."""


def starting_varsr_config(config: VarsrStageConfig) -> VarsrConfig:
    """The configuration of the model that a run starts from, without its weights.

    Raises:
        ConfigError: `model` is neither a preset nor a folder.
        WeightsError: the folder has no configuration of VARSR.
    """
    if config.model in PRESETS:
        return PRESETS[config.model]
    if Path(config.model).is_dir():
        return read_config_of(Path(config.model), VARSR)
    raise ConfigError(
        f"{config.model}: neither a model folder nor one of the presets {', '.join(PRESETS)}"
    )


def starting_varsr(config: VarsrStageConfig) -> VarsrModel:
    """A preset with fresh weights, or the model of a folder; then the tokenizer of another.

    Raises:
        ConfigError: `model` is neither, sees no pictures, or has no trained tokenizer.
        WeightsError: a folder's weights cannot be loaded or are of another shape.
    """
    torch.manual_seed(config.seed)
    if config.model in PRESETS:
        if not config.tokenizer_from:
            raise ConfigError(
                f"{config.model} starts with fresh weights, but its tokenizer must be a trained "
                "one; set tokenizer_from to a model folder that has it"
            )
        model = initialise_varsr(VarsrModel(PRESETS[config.model]))
    else:
        starting_varsr_config(config)
        model = load_model_of(Path(config.model), VARSR)
    if model.prefix is None:
        raise ConfigError(f"{config.model}: sees no low-resolution pictures; take another model")
    if config.tokenizer_from:
        load_part(model.tokenizer, Path(config.tokenizer_from), "tokenizer")
    return model


def initialise_varsr(model: VarsrModel) -> VarsrModel:
    """Set the weights of everything but the tokenizer as the authors do, kernels aside.

    Matrices and tables are normal with standard deviation sqrt(1/(3 c)); the outputs of both
    branches are reduced with the depth; gates start near zero, so that blocks come in one by one.
    The authors' kernels have standard deviation 0.02 whatever their size, through which a narrow
    prefix encoder would see nothing; ours keep the variance of what passes.
    """
    transformer = model.transformer
    width, depth = transformer.config.width, transformer.config.depth
    std = math.sqrt(1 / (3 * width))
    for part in (model.prefix, model.labels, transformer, model.refiner):
        for module in [] if part is None else part.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
    shrink = 1 / math.sqrt(2 * depth)
    for module in transformer.modules():
        if isinstance(module, SelfAttention):
            module.out.weight.data.mul_(shrink)
        elif isinstance(module, FeedForward):
            module.down.weight.data.mul_(shrink)
        elif isinstance(module, Modulation):
            module.weight.data[: 2 * width].mul_(_GATES)
            module.weight.data[2 * width :].mul_(0.5)
    transformer.head.modulation.weight.data.mul_(0.5)
    transformer.head.out.weight.data.mul_(0.02)
    nn.init.trunc_normal_(transformer.start, std=std, a=-3 * std, b=3 * std)
    return model
