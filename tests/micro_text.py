"""A small model that takes text, written as the converter of weights writes it."""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig

CONFIG = dataclasses.replace(
    NSARM_NANO,
    name="micro-text",
    window=16,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(8, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(8, 32, 1, (2, 4), groups=8),
    transformer=TransformerConfig(32, 2, 2, 32, 64, scales=4, cross=True),
    text_width=256,
    overlap=4,
)


def write_text_model(folder: Path, text_encoder_folder: Path) -> None:
    """Fill a folder: model of random weights, default prompt, text encoder."""
    torch.manual_seed(0)
    model = NsarmModel(CONFIG)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape)
    save_file(model.state_dict(), folder / "model.safetensors")
    text = json.dumps({"family": "nsarm", "config": CONFIG.to_dict()})
    (folder / "config.json").write_text(text)
    save_file({"features": torch.randn(3, 256)}, folder / "prompt.safetensors")
    shutil.copytree(text_encoder_folder, folder / "text_encoder")
