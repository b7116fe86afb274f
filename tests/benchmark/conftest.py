"""Three models of one window of 16 pixels: all kinds of layers, and no waiting."""

from collections.abc import Iterator

import pytest
import torch
from tests.published_varsr import MICRO_VARSR

from nsarm_cli.benchmark import roofline
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import PRESETS, NsarmConfig
from nsarm_cli.models.nsarm.transformation import (
    BranchConfig,
    ConvolutionalTransformationConfig,
    TransformationConfig,
)
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS


def micro(**changes) -> NsarmConfig:
    """A learned constant in place of text, and a convolutional transformation network."""
    depth = changes.pop("depth", 2)
    settings = {
        "name": "micro",
        "window": 16,
        "enlarge": 4,
        "sides": (1, 2, 4, 8),
        "patch": 1,
        "autoencoder": AutoencoderConfig(4, 16, (1, 2), 1, 1, unshuffle=4, groups=8),
        "transformation": ConvolutionalTransformationConfig(4, 16, 1, (1, 2), groups=8),
        "transformer": TransformerConfig(32, depth, 2, 4, 8, scales=4, cross=False),
        "text_width": None,
        "overlap": 4,
    }
    return NsarmConfig(**(settings | changes))


def micro_text() -> NsarmConfig:
    """Text, cross-attention, and a transformation network of transformers."""
    return micro(
        name="micro-text",
        enlarge=1,
        autoencoder=AutoencoderConfig(4, 16, (1, 2, 2, 2), 1, 1, groups=8),
        transformation=TransformationConfig(
            4, 2, (8, 16), (BranchConfig(1, 16, 1, 2), BranchConfig(2, 32, 2, 2))
        ),
        transformer=TransformerConfig(32, 2, 2, 4, 8, scales=4, cross=True),
        text_width=128,
    )


@pytest.fixture
def presets(monkeypatch) -> Iterator[None]:
    """Make the models known by name, and the measured matrices small."""
    for config in (micro(), micro_text()):
        monkeypatch.setitem(PRESETS, config.name, config)
    monkeypatch.setitem(VARSR_PRESETS, MICRO_VARSR.name, MICRO_VARSR)
    monkeypatch.setitem(roofline._SIDES, "cpu", (64, 128))
    monkeypatch.setitem(roofline._COPY_BYTES, "cpu", 2**20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine
    yield
    torch.set_num_threads(threads)
