"""Numbers recorded from the authors' code, and the models that must give them again.

All weights follow from their names (`weight_recipe.py`), so the models are built at their
true sizes without files. Everything is computed in float32 on the CPU.
"""

import gzip
import importlib.util
import json
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from nsarm_cli.models.nsarm.config import NSARM_TINY
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.weights.keymap import autoencoder_from_upstream, transformer_from_upstream
from nsarm_cli.weights.strict import load_strictly

DATA = Path(__file__).parents[1] / "goldens"
LOG = logging.getLogger(__name__)


class Golden:
    """Tensors by name; large ones as every n-th number (`.sub`) and statistics (`.stat`).

    Show how close everything is with `pytest --log-cli-level=INFO`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors = load_file(DATA / f"{name}.safetensors")

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def difference(self, key: str, tensor: Tensor) -> float:
        """Largest absolute difference of the recorded numbers, and of the statistics if any."""
        flat = tensor.detach().flatten()
        if key in self.tensors:
            recorded = self.tensors[key].flatten()
            assert len(flat) == len(recorded)
            largest = float((flat - recorded).abs().max())
        else:
            *statistics, numel, stride = self.tensors[f"{key}.stat"].tolist()
            assert len(flat) == numel
            largest = float((flat[:: int(stride)] - self.tensors[f"{key}.sub"]).abs().max())
            wide = flat.double()
            ours = [wide.mean(), wide.std(), wide.min(), wide.max()]
            pairs = zip(ours, statistics, strict=True)
            largest = max(largest, *(abs(float(a) - b) for a, b in pairs))
        LOG.info("%s %s differs by at most %.1e", self.name, key, largest)
        return largest

    def bits(self, key: str, shapes: list[tuple[int, ...]]) -> list[Tensor]:
        """Unpack bits into tensors of the shapes given, one after the other."""
        flat = torch.from_numpy(np.unpackbits(self.tensors[key].numpy())).bool()
        sizes = [int(np.prod(shape)) for shape in shapes]
        assert 0 <= len(flat) - sum(sizes) < 8
        pieces = flat[: sum(sizes)].split(sizes)
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


@pytest.fixture(scope="session")
def golden_data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def golden() -> type[Golden]:
    return Golden


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("weight_recipe", DATA / "weight_recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def upstream_weights(recipe):
    """Make the learned tensors of a list of the authors' names; `only` keeps those prefixes."""

    def make(model: str, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Tensors whose names begin with one of `without` have a shape and no numbers."""
        with gzip.open(DATA / f"{model}_names.json.gz") as file:
            names = json.load(file)
        entries = names.items() if isinstance(names, dict) else [(n, s) for n, _, s in names]
        tensors = {}
        for name, shape in entries:
            if name.startswith(without):
                tensors[name] = torch.empty(shape, device="meta")
            elif (values := recipe.make(name, shape)) is not None:
                tensors[name] = torch.from_numpy(values)
        return tensors

    return make


@pytest.fixture(scope="session")
def autoencoder_tensors(upstream_weights) -> dict[str, Tensor]:
    return autoencoder_from_upstream(upstream_weights("vae_d56"), NSARM_TINY, "recipe")


@pytest.fixture(scope="session")
def autoencoder(autoencoder_tensors):
    """The autoencoder of NSARM-8B."""
    with torch.device("meta"):
        module = NsarmModel(NSARM_TINY).autoencoder
    prefix = "autoencoder."
    tensors = {name.removeprefix(prefix): t for name, t in autoencoder_tensors.items()}
    load_strictly(module, tensors, "recipe")
    return module.eval()


@pytest.fixture(scope="session")
def tiny(upstream_weights, autoencoder_tensors) -> NsarmModel:
    """NSARM-8B with a transformer of 4 blocks; the other networks have their true size."""
    theirs = transformer_from_upstream(upstream_weights("tiny"), NSARM_TINY, "recipe")
    with torch.device("meta"):
        model = NsarmModel(NSARM_TINY)
    load_strictly(model, theirs | autoencoder_tensors, "recipe")
    return model.eval()


@pytest.fixture(scope="session")
def pictures() -> Tensor:
    """Two photographs, "2 3 256 256" in [-1, 1]."""
    names = ("astronaut_256.png", "coffee_256.png")
    arrays = [np.array(Image.open(DATA / "photos" / name)) for name in names]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous() / 255 * 2 - 1


@pytest.fixture(scope="session")
def preliminary(golden) -> list[Tensor]:
    """The recorded residuals "1 14 s s" of the seven preliminary scales of the first photograph."""
    recorded = golden("map")
    residuals = [recorded[f"photo_a.out.{i}"] for i in range(7)]
    sides = NSARM_TINY.preliminary_sides
    return [o.reshape(1, 14, s, s) for o, s in zip(residuals, sides, strict=True)]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield
