"""A tiny stand-in for a model, pictures, and the command line run in this process."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Generator, Tensor

from micro_text import write_text_model
from nsarm_cli.cli.main import main
from nsarm_cli.models.interface import OnScale, Sampling, Trace
from nsarm_cli.models.nsarm.config import NSARM_NANO
from nsarm_cli.models.nsarm.memory import memory_needs


class FakeResolver:
    """Repeats pixels and adds noise from each window's own generator; no weights, no waiting.

    Temperature is the amplitude of the noise, so 0 gives the picture alone.
    """

    scale = 4
    window = 16
    overlap = 4
    sampling = Sampling(temperature=0.25)
    color = "none"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.samplings: list[Sampling] = []

    def resolve(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        assert lr.shape == (len(generators), 3, self.window, self.window)
        assert lr.dtype == torch.float32
        assert lr.abs().max() <= 1
        self.batches.append(len(lr))
        self.samplings.append(sampling)
        side = self.scale * self.window
        noise = torch.stack([torch.rand(3, side, side, generator=g) for g in generators])
        if trace is not None:
            trace["draws"] = noise[0]
        for done in range(3):
            if on_scale is not None:
                on_scale(done + 1, 3)
        large = lr.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return (large + sampling.temperature * (noise - 0.5)).clamp(-1, 1)


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def resolver() -> FakeResolver:
    return FakeResolver()


@pytest.fixture
def make_picture() -> Callable[[int, int], Image.Image]:
    """Make a picture of a size: smooth shades with some texture."""

    def make(width: int, height: int) -> Image.Image:
        y, x = np.mgrid[0:height, 0:width]
        shades = [40 + 150 * x / max(width, 2), 60 + 120 * y / max(height, 2), 90 + (x * y) % 31]
        return Image.fromarray(np.stack(shades, -1).astype(np.uint8))

    return make


@pytest.fixture
def photo(tmp_path, make_picture) -> Path:
    path = tmp_path / "photo.png"
    make_picture(20, 12).save(path)
    return path


@pytest.fixture
def run_cli(monkeypatch, capsys, resolver, tmp_path) -> Callable[..., Result]:
    """Run `nsarm ARGUMENTS...` in this process, with the stand-in for any model."""
    if "NSARM_HOME" not in os.environ:  # what is installed on this machine must not matter
        monkeypatch.setenv("NSARM_HOME", str(tmp_path / "nsarm-home"))
    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", lambda *_: resolver)
    needs = memory_needs(NSARM_NANO)
    monkeypatch.setattr("nsarm_cli.weights.families.memory_needs", lambda _: needs)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


WORDS = ["a", "the", "dog", "cat", "red", "high", "quality", "image", "with", "rich", "blurry"]


@pytest.fixture(scope="session")
def text_encoder_folder(tmp_path_factory) -> Path:
    """A T5 encoder of random weights with a tokenizer of a few words and letters, width 256."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder = tmp_path_factory.mktemp("t5")
    pieces = [f"\u2581{word}" for word in WORDS] + list("\u2581abcdefghijklmnopqrstuvwxyz.,")
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((p, -5.0) for p in pieces)]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64, d_model=256, d_kv=16, d_ff=96, num_layers=3, num_heads=4,
        feed_forward_proj="gated-gelu", initializer_factor=1.0,
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_model(tmp_path_factory, text_encoder_folder) -> Path:
    """A folder as the converter of weights writes it: model, default prompt, text encoder."""
    folder = tmp_path_factory.mktemp("micro-text")
    write_text_model(folder, text_encoder_folder)
    return folder


@pytest.fixture
def alexnet() -> dict[str, Tensor]:
    """Random LPIPS weights in AlexNet's shape, with few channels."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    previous = 3
    for i, (channels, side) in enumerate(((8, 11), (12, 5), (16, 3), (12, 3), (12, 3))):
        fan = previous * side * side
        kernel = torch.randn(channels, previous, side, side, generator=generator)
        tensors[f"conv.{i}.weight"] = kernel * (2 / fan) ** 0.5
        tensors[f"conv.{i}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        tensors[f"lin.{i}"] = torch.rand(channels, generator=generator)
        previous = channels
    return tensors


@pytest.fixture
def vgg16() -> dict[str, Tensor]:
    """Random DISTS weights in VGG16's shape, with few channels."""
    generator = torch.Generator().manual_seed(5)
    widths = (3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)
    tensors = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"conv.{i}.weight"] = kernel * (2 / (9 * inputs)) ** 0.5
        tensors[f"conv.{i}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    for name in ("alpha", "beta"):
        tensors[name] = torch.rand(3 + 4 + 5 + 6 + 7 + 8, generator=generator)
    return tensors


@pytest.fixture
def vgg16_file(vgg16: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "dists.safetensors"
    save_file(vgg16, path)
    return path


@pytest.fixture
def alexnet_file(alexnet: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "lpips.safetensors"
    save_file(alexnet, path)
    return path


@pytest.fixture
def make_set(tmp_path) -> Callable[..., Path]:
    """Write a set of pictures: DIR/lr and, with references, DIR/gt, four times as large."""

    def make(names: tuple[str, ...] = ("a", "b", "c"), *, gt: bool = True, side: int = 24) -> Path:
        folder = tmp_path / "pictures"
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            reference = Image.fromarray(coarse).resize((4 * side,) * 2, Image.Resampling.BICUBIC)
            for part, picture in (("lr", reference.resize((side, side))), ("gt", reference)):
                if part == "lr" or gt:
                    path = folder / part / f"{name}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(path)
        return folder

    return make


@pytest.fixture
def make_outputs(tmp_path) -> Callable[..., Path]:
    """Write outputs for a set: its references with noise of a strength, times a factor."""

    def make(name: str, pictures: Path, strength: float, factor: int = 1) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, path in enumerate(sorted((pictures / "gt").iterdir())):
            rng = np.random.default_rng(100 + number)
            with Image.open(path) as picture:
                large = picture.resize((factor * picture.width, factor * picture.height))
            noisy = np.asarray(large) + rng.normal(0, strength * (1 + number), (*large.size, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / path.name)
        return folder

    return make
