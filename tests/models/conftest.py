"""Small models with random weights, in which every parameter matters."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import NextScaleTransformer, TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig

SMALL = dataclasses.replace(
    NSARM_NANO,
    name="small",
    window=16,
    sides=(1, 2, 3, 5, 8),
    autoencoder=AutoencoderConfig(6, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(6, 32, 1, (2, 4, 6), groups=8),
    transformer=TransformerConfig(64, 3, 2, 24, 48, scales=5, cross=False),
    overlap=4,
)
SMALL_TEXT = dataclasses.replace(
    SMALL, transformer=dataclasses.replace(SMALL.transformer, cross=True), text_width=256
)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Draw all weights so that signals keep their size and no branch, gate or bias is idle."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim in (2, 4):
            values = noise / math.sqrt(parameter[0].numel())
        elif name.endswith("weight"):
            values = 1 + 0.1 * noise
        else:
            values = 0.5 * noise
        parameter.data = values
    return module.eval()


@pytest.fixture
def small() -> NsarmConfig:
    return SMALL


@pytest.fixture
def make_model() -> Callable[..., NsarmModel]:
    """Make an NSARM model of a few thousand weights, with or without text."""

    def make(*, text: bool = False, seed: int = 0) -> NsarmModel:
        return randomise(NsarmModel(SMALL_TEXT if text else SMALL), seed)

    return make


@pytest.fixture
def make_transformer() -> Callable[..., NextScaleTransformer]:
    """Make a transformer of three blocks whose tokens are 24 bits."""

    def make(
        *, cross: bool = False, scales: int = 5, prefix: int = 0, seed: int = 0, **parts: Any
    ) -> NextScaleTransformer:
        config = TransformerConfig(64, 3, 2, 24, 48, scales=scales, cross=cross, prefix=prefix)
        return randomise(NextScaleTransformer(config, **parts), seed)

    return make


@pytest.fixture
def make_condition() -> Callable[..., Condition]:
    """Make a condition for a batch; `lengths` are of the captions, or None without text."""

    def make(batch: int, lengths: tuple[int, ...] | None = None, seed: int = 0) -> Condition:
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(batch, 64, generator=generator)
        if lengths is None:
            return Condition(pooled)
        context = torch.randn(batch, max(lengths), 64, generator=generator)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return Condition(pooled, context, mask)

    return make


@pytest.fixture
def make_inputs() -> Callable[..., list[Tensor]]:
    """Make input tokens of scales 1, 2, ... of a schedule."""

    def make(schedule: ScaleSchedule, batch: int = 2, width: int = 24) -> list[Tensor]:
        generator = torch.Generator().manual_seed(7)
        return [
            torch.randn(batch, length, width, generator=generator)
            for length in schedule.lengths[1:]
        ]

    return make


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield
