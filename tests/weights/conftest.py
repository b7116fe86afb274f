"""A micro model in a folder."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig

MICRO: NsarmConfig = dataclasses.replace(
    NSARM_NANO,
    name="micro",
    window=16,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(8, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(8, 32, 1, (2, 4), groups=8),
    transformer=TransformerConfig(32, 2, 2, 32, 64, scales=4, cross=False),
    overlap=4,
)


@pytest.fixture
def micro() -> NsarmModel:
    torch.manual_seed(0)
    return NsarmModel(MICRO)


@pytest.fixture
def folder(micro: NsarmModel, tmp_path: Path) -> Path:
    path = tmp_path / "micro"
    path.mkdir()
    save_file(
        {k: v.contiguous() for k, v in micro.state_dict().items()}, path / "model.safetensors"
    )
    text = json.dumps({"family": "nsarm", "config": MICRO.to_dict()})
    (path / "config.json").write_text(text)
    return path
