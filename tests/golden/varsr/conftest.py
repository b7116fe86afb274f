"""VARSR at two geometries with small networks, against numbers recorded from its authors' code.

"small" makes 64 pixels with scales 1 to 4, two pictures at once; "full" makes 512 pixels with
the published scales, one picture. Everything is computed in float32 on the CPU.
"""

import gzip
import importlib.util
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.varsr.config import VARSR, VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.refiner import RefinerConfig
from nsarm_cli.models.varsr.tokenizer import TokenizerConfig
from nsarm_cli.weights.strict import load_strictly
from nsarm_cli.weights.varsr_keymap import model_from_upstream, tokenizer_from_upstream

STRENGTH = 6.0


def tiny(name: str, sides: tuple[int, ...]) -> VarsrConfig:
    prefix = sides[-1] ** 2
    return replace(
        VARSR,
        name=name,
        sides=sides,
        tokenizer=TokenizerConfig(8, 32, codes=128),
        prefix=(8, 16, 24, 32, 48),
        transformer=TransformerConfig(64, 3, 4, 8, 128, len(sides), cross=False, prefix=prefix),
        refiner=RefinerConfig(48, 2),
        overlap=4,
        sampling=Sampling(temperature=0, guidance=1 + STRENGTH, refiner_steps=10),
    )


SMALL = tiny("small", (1, 2, 3, 4))
FULL = tiny("full", VARSR.sides)


@dataclass(frozen=True)
class Case:
    """A model, its pictures and what is recorded of them.

    Attributes:
        model: with the recipe's weights.
        hr: "b 3 h w" in [-1, 1].
        lr: likewise, of the same size.
        recorded: opens a file of goldens by the second half of its name.
    """

    model: VarsrModel
    hr: Tensor
    lr: Tensor
    recorded: Callable[[str], object]


@pytest.fixture(scope="session")
def varsr_data(golden_data):
    return golden_data / "varsr"


@pytest.fixture(scope="session")
def varsr_recipe(varsr_data) -> ModuleType:
    path = varsr_data / "weight_recipe.py"
    spec = importlib.util.spec_from_file_location("varsr_weight_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def varsr_tensors(varsr_data, varsr_recipe):
    """Make the tensors of one geometry by the authors' names, those of computed buffers too."""
    with gzip.open(varsr_data / "tiny_names.json.gz") as file:
        names = json.load(file)

    def make(name: str) -> dict[str, Tensor]:
        tensors = {}
        for key, (shape, checksum) in (names["small"] | names[name]).items():
            if key.endswith(varsr_recipe.STRUCTURAL):
                tensors[key] = torch.zeros(shape)
                continue
            values = varsr_recipe.tensor(key, shape)
            assert zlib.crc32(values.tobytes()) == checksum, key
            tensors[key] = torch.from_numpy(values)
        return tensors

    return make


def is_of_tokenizer(name: str) -> bool:
    return name.startswith(("encoder.", "decoder.", "quant", "post_quant"))


@pytest.fixture(scope="session")
def make_varsr(varsr_tensors):
    """Build a model with the recipe's weights; they follow from names and shapes."""

    def make(config: VarsrConfig, tensors: dict[str, Tensor] | None = None) -> VarsrModel:
        theirs = tensors or varsr_tensors(config.name)
        tokenizer = {n: t for n, t in theirs.items() if is_of_tokenizer(n)}
        others = {n: t for n, t in theirs.items() if not is_of_tokenizer(n)}
        with torch.device("meta"):
            model = VarsrModel(config)
        ours = tokenizer_from_upstream(tokenizer, config, "recipe")
        ours |= model_from_upstream(others, config, "recipe")
        load_strictly(model, ours, "recipe")
        return model.eval().requires_grad_(requires_grad=False)

    return make


@pytest.fixture(scope="session")
def make_case(make_varsr, varsr_recipe, golden):
    def make(config: VarsrConfig, size: int, batch: int) -> Case:
        def picture(values) -> Tensor:
            return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous().float() / 255 * 2 - 1

        hr = varsr_recipe.image(f"input.hr.{config.name}", size, batch)
        lr = varsr_recipe.box_down_up(hr, 4)
        return Case(
            make_varsr(config),
            picture(hr),
            picture(lr),
            lambda part: golden(f"varsr/{config.name}_{part}"),
        )

    return make


@pytest.fixture(scope="session")
def small_case(make_case) -> Case:
    return make_case(SMALL, 64, 2)


@pytest.fixture(scope="session")
def full_case(make_case) -> Case:
    return make_case(FULL, 512, 1)


@pytest.fixture(params=["small", "full"])
def case(request) -> Case:
    return request.getfixturevalue(f"{request.param}_case")


@pytest.fixture
def recorded_noise(varsr_recipe):
    """Give the recorded normal numbers one after the other, the first `rows` of each draw."""

    def make(tag: str, shapes: list[tuple[int, ...]], shape: tuple[int, ...]):
        draws: Iterator[Tensor] = (
            torch.from_numpy(varsr_recipe.gaussian(f"noise.{tag}.{k}", drawn)).float()
            for k, drawn in enumerate(shapes)
        )
        rows = torch.Size(shape[:-1]).numel()
        return lambda: next(draws)[:rows].reshape(shape)

    return make


@pytest.fixture(autouse=True)
def without_gradients():
    """Instead of inference mode, since one test needs gradients."""
    with torch.no_grad():
        yield
