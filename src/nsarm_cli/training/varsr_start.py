"""The VARSR model that a run starts from: a preset or a folder, with parts of other folders."""

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
from nsarm_cli.weights.strict import check_names_and_shapes

_LABELS = "labels.weight"
_OF_SCALES = ("transformer.start", "transformer.scale_embedding.weight")
"""What follows from the scales of a model, and so may differ between models of one shape."""

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
        f"{config.model}: neither a model folder nor one of the presets {', '.join(PRESETS)}; "
        "name what nsarm weights convert or an earlier run made with --model"
    )


def starting_varsr(config: VarsrStageConfig) -> VarsrModel:
    """A preset with fresh weights, or the model of a folder; then the parts that others give.

    Raises:
        ConfigError: `model` is neither, sees no pictures, or has no trained tokenizer; or
            `base_from` is no model of classes.
        WeightsError: a folder's weights cannot be loaded or are of another shape.
    """
    torch.manual_seed(config.seed)
    if config.model in PRESETS:
        _check_sees(PRESETS[config.model], config.model)
        if not (config.tokenizer_from or config.base_from):
            raise ConfigError(
                f"{config.model} starts with fresh weights, but its tokenizer must be a trained "
                "one; set tokenizer_from to a model folder that has it, or base_from to the "
                "folder of a model of classes"
            )
        model = initialise_varsr(VarsrModel(PRESETS[config.model]))
    else:
        _check_sees(starting_varsr_config(config), config.model)
        model = load_model_of(Path(config.model), VARSR)
    if config.base_from:
        _take_base(model, Path(config.base_from))
    if config.tokenizer_from:
        load_part(model.tokenizer, Path(config.tokenizer_from), "tokenizer")
    return model


def _check_sees(config: VarsrConfig, model: str) -> None:
    if config.prefix is None:
        raise ConfigError(
            f"{model}: makes pictures of classes and sees no low-resolution ones; to start from "
            'it, set base_from to its folder and model to "varsr"'
        )


def _take_base(model: VarsrModel, folder: Path) -> None:
    """Copy what a model of classes has in common with a model that sees pictures.

    As the authors do, its first classes become the quality labels. What stands before the first
    scale is another thing in the two, and so are the scales where their number differs: these
    keep what `model` has, as does the prefix encoder.
    """
    if read_config_of(folder, VARSR).prefix is not None:
        raise ConfigError(
            f"base_from is {folder}, which is no model of classes; to go on from it, set model"
        )
    own = model.state_dict()
    base = load_model_of(folder, VARSR).state_dict()
    base[_LABELS] = base[_LABELS][: len(own[_LABELS])]
    theirs = {
        name: tensor
        for name, tensor in base.items()
        if name not in _OF_SCALES or (name in own and own[name].shape == tensor.shape)
    }
    kept = {
        name: tensor
        for name, tensor in own.items()
        if name.startswith("prefix.") or (name in _OF_SCALES and name not in theirs)
    }
    check_names_and_shapes(model, kept | theirs, str(folder))
    model.load_state_dict(kept | theirs, strict=True)


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
