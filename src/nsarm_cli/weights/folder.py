"""A model folder: `config.json` and `model.safetensors`, or shards of it; loaded strictly."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.core.memory import MemoryNeeds
from nsarm_cli.models.nsarm.config import PRESETS as NSARM_PRESETS
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.memory import memory_needs as nsarm_needs
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.model import cast_for_inference as cast_nsarm
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS
from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.memory import memory_needs as varsr_needs
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.model import cast_for_inference as cast_varsr
from nsarm_cli.weights.shards import INDEX_FILE, STORED_DTYPES, shard_files
from nsarm_cli.weights.strict import check_names_and_shapes, load_strictly

CONFIG_FILE = "config.json"

_CPU = torch.device("cpu")


Config = TypeVar("Config")
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Family(Generic[Config, Model]):
    """What a folder needs to know of a family of models.

    Attributes:
        name: in `config.json`.
        config: makes a configuration of plain values.
        model: builds a model of a configuration.
        cast: makes it ready for inference in a type.
        needs: counts what it takes in memory.
        presets: configurations that have a name.
        text_width: width of the features of its prompt; None for a model without text.
    """

    name: str
    config: Callable[[dict[str, Any]], Config]
    model: Callable[[Config], Model]
    cast: Callable[[Model, torch.dtype], Model]
    needs: Callable[[Config], MemoryNeeds]
    presets: Mapping[str, Config]
    text_width: Callable[[Config], int | None]


NSARM = Family(
    NsarmConfig.family,
    NsarmConfig.from_dict,
    NsarmModel,
    cast_nsarm,
    nsarm_needs,
    NSARM_PRESETS,
    lambda config: config.text_width,
)
VARSR = Family(
    VarsrConfig.family,
    VarsrConfig.from_dict,
    VarsrModel,
    cast_varsr,
    varsr_needs,
    VARSR_PRESETS,
    lambda _: None,
)

FAMILIES: Mapping[str, Family[Any, Any]] = {family.name: family for family in (NSARM, VARSR)}
"""All families, by name."""

AnyConfig = NsarmConfig | VarsrConfig
AnyModel = NsarmModel | VarsrModel


def read_any_config(folder: Path) -> AnyConfig:
    """Read the configuration of a folder of any family; see `read_config_of`."""
    config: AnyConfig = read_config_of(folder, FAMILIES[family_of(folder)])
    return config


def load_any_model(folder: Path) -> AnyModel:
    """Build the model of a folder of any family with its weights; see `load_model_of`."""
    model: AnyModel = load_model_of(folder, FAMILIES[family_of(folder)])
    return model


def read_config(folder: Path) -> NsarmConfig:
    """Read the configuration of an NSARM folder; see `read_config_of`."""
    return read_config_of(folder, NSARM)


def load_model(
    folder: Path, device: torch.device = _CPU, dtype: torch.dtype | None = None
) -> NsarmModel:
    """Build the model of an NSARM folder with its weights; see `load_model_of`."""
    return load_model_of(folder, NSARM, device, dtype)


def family_of(folder: Path) -> str:
    """Name of the family that runs the model of a folder.

    Raises:
        WeightsError: the file is missing, not JSON, or names no known family.
    """
    name, _ = _read_json(folder)
    return name


def read_config_of(folder: Path, family: Family[Config, Model]) -> Config:
    """Read the configuration of a model folder.

    Raises:
        WeightsError: the file is missing, not JSON, or describes no model of the family.
    """
    path = folder / CONFIG_FILE
    name, values = _read_json(folder)
    if name != family.name:
        raise WeightsError(
            f'{path}: is a model of family "{name}", but one of "{family.name}" is needed here'
        )
    try:
        return family.config(values)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise _no_model(path, error) from error


def load_model_of(
    folder: Path,
    family: Family[Config, Model],
    device: torch.device = _CPU,
    dtype: torch.dtype | None = None,
) -> Model:
    """Build the model of a folder with its weights.

    The model is built without memory. Each tensor goes from the mapped file to its place: on
    another device there is no copy on the processor, and on the processor a tensor that is
    stored in its final type stays in the mapped file and takes no memory of its own.

    Args:
        folder: with `config.json` and safetensors.
        family: of the model.
        device: where the model will lie.
        dtype: makes the model ready for inference in this type; None gives all tensors in
            float32, for training.

    Raises:
        WeightsError: a file is missing or damaged, or the tensors are not the model's.
    """
    config = read_config_of(folder, family)
    try:
        with torch.device("meta"):
            model = family.model(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise _no_model(folder / CONFIG_FILE, error) from error
    if dtype is not None:
        family.cast(model, dtype)
    wanted = model.state_dict()
    files = shard_files(folder)
    source = str(files[0] if len(files) == 1 else folder / INDEX_FILE)
    # Names and shapes are checked before the numbers are read, which can take a minute.
    check_names_and_shapes(model, _read(files, _without_numbers), source)

    def place(file: Any, name: str) -> Tensor:
        tensor: Tensor = file.get_tensor(name)
        return tensor.to(device, wanted[name].dtype)

    load_strictly(model, _read(files, place), source)
    return model


def _read_json(folder: Path) -> tuple[str, dict[str, Any]]:
    """Family and configuration in `config.json`."""
    path = folder / CONFIG_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        family = values["family"]
    except OSError as error:
        raise WeightsError(
            f"{folder}: is not a model folder ({CONFIG_FILE}: {error.strerror}); "
            "give a folder written by nsarm train or a known model's name"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise _no_model(path, error) from error
    if family not in FAMILIES:
        known = " and ".join(f'"{name}"' for name in FAMILIES)
        raise WeightsError(f'{path}: family "{family}" is unknown; known are {known}')
    if "config" not in values:
        raise _no_model(path, KeyError("config"))
    return family, values["config"]


def _read(files: Sequence[Path], take: Callable[[Any, str], Tensor]) -> dict[str, Tensor]:
    """Take something of every tensor of some files."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                found = {name: take(file, name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{path}: cannot be read as safetensors ({error}); get the file again"
            ) from error
        twice = next((name for name in found if name in tensors), None)
        if twice is not None:
            raise WeightsError(
                f"{path}: has {twice}, which another shard has too; get the files again"
            )
        for name, tensor in found.items():
            if not tensor.is_floating_point():
                raise WeightsError(
                    f"{path}: {name} has numbers of type {tensor.dtype}, which weights do not "
                    "have; get the file again"
                )
        tensors |= found
    return tensors


def _without_numbers(file: Any, name: str) -> Tensor:
    part = file.get_slice(name)
    dtype = STORED_DTYPES.get(part.get_dtype(), torch.uint8)
    return torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _no_model(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: does not describe a model ({error}); write it again with nsarm train"
    )
