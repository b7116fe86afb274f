"""A micro model, photographs to train it on, and the command that does it."""

import dataclasses
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from nsarm_cli.cli import console
from nsarm_cli.cli.main import main
from nsarm_cli.degradation.recipe import REALESRGAN_LIGHT
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig
from nsarm_cli.training.data import Batch, Batches, Framing
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.training.order import ShuffledOrder
from nsarm_cli.training.photos import PhotoStore

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
CROP = 64  # one window of the micro model


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def micro_config() -> NsarmConfig:
    return MICRO


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


@pytest.fixture
def batch(photos: Path) -> Batch:
    """Two crops with their low-resolution sides."""
    framing = Framing({1.0: (CROP, CROP)}, recipe=REALESRGAN_LIGHT)
    return Batches(ShuffledOrder(PhotoStore([photos]), 2, 1, 5), framing, 2, 5, 1)[0]


@pytest.fixture
def write_settings(micro_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a TOML file for a short run of the micro model, with some settings changed."""

    def write(**changes: object) -> Path:
        values = {
            "model": str(micro_folder),
            "steps": 4,
            "batch": 2,
            "crop": CROP,
            "lr": 1e-3,
            "warmup": 1,
            "workers": 0,
            "precision": "fp32",
            "validate_every": 2,
            "validate_batches": 1,
        } | changes
        path = tmp_path / "settings.toml"
        # JSON writes strings, numbers, booleans and lists of them as TOML does.
        path.write_text("".join(f"{name} = {json.dumps(v)}\n" for name, v in values.items()))
        return path

    return write


@pytest.fixture
def nsarm_train(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `nsarm train ARGUMENTS...` in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main(["train", *(str(argument) for argument in arguments)])
        return Result(code, *capsys.readouterr())

    return run


class Saved(NamedTuple):
    """The newest checkpoint of a run."""

    step: int
    tensors: dict[str, Tensor]


@pytest.fixture
def saved_in() -> Callable[[Path], Saved]:
    """Read the newest checkpoint of a run's folder, whole, however many processes wrote it."""

    def read(run: Path) -> Saved:
        reader = HuggingFaceStorageReader(str(max((run / "checkpoints").glob("step-*"))))
        there = reader.read_metadata().state_dict_metadata
        tensors = {n: torch.empty(e.size, dtype=e.properties.dtype) for n, e in there.items()}
        load(tensors, storage_reader=reader)
        return Saved(int(tensors.pop("step")), tensors)

    return read


@pytest.fixture
def interrupt_during(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Send signals to this process while a given step is under way."""

    def arrange(step: int, numbers: Sequence[int] = (signal.SIGINT,)) -> None:
        begin = console.Bar.begin

        def begin_and_interrupt(bar: console.Bar, done: int, label: str) -> object:
            if done == step - 1:
                for number in numbers:
                    signal.raise_signal(number)
            return begin(bar, done, label)

        monkeypatch.setattr(console.Bar, "begin", begin_and_interrupt)

    return arrange
