"""A micro model and photographs to train it on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.runner import write_model

MICRO: NsarmConfig = dataclasses.replace(
    NSARM_NANO,
    name="micro",
    window=16,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(8, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(8, 32, 1, (2, 4, 8), groups=8),
    transformer=TransformerConfig(32, 2, 2, 32, 64, scales=4, cross=False),
    overlap=4,
)


@pytest.fixture
def micro() -> NsarmModel:
    torch.manual_seed(0)
    return initialise(NsarmModel(MICRO))


@pytest.fixture
def micro_folder(micro: NsarmModel, tmp_path: Path) -> Path:
    folder = tmp_path / "micro"
    write_model(micro, folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures with edges and gradients, larger than a crop."""
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[:96, :112]
    for i in range(4):
        waves = np.sin((x * (i + 1) + y * (4 - i)) / 9.0)
        picture = np.stack([waves, np.sign(waves), (x - y) / 112], axis=-1) * 100 + 128
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder
