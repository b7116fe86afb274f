"""Save and resume a run: model, optimiser, step and generator state, atomically, no pickles."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.weights.strict import check_names_and_shapes

_GENERATOR = "generator.cpu"


def save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write everything a run needs to go on; the old file stays until the new one is whole."""
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors[_GENERATOR] = torch.get_rng_state()
    save_atomically(tensors, path, {"step": str(step)})


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote and return the step.

    Raises:
        ConfigError: the file is damaged or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            step = int(file.metadata()["step"])
        state = _optimizer_state(_below(tensors, "optimizer."))
        generator = tensors[_GENERATOR]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: is damaged or no checkpoint ({error}); remove it or use another --out folder"
        ) from error
    model = _below(tensors, "model.")
    try:
        check_names_and_shapes(module, model, str(path))
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    if not _fits(state, optimizer):
        raise ConfigError(f"{path}: holds the optimiser of another stage; use another --out folder")
    module.load_state_dict(model, strict=True)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(generator)
    return step


def save_atomically(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write safetensors under a temporary name, flush to disk, then rename.

    Raises:
        ConfigError: the disk refuses; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        save_file(plain, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors writes for the owner only; a model is to be shared
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: cannot be written ({error}); free space or use another --out folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _optimizer_state(flat: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = value
    return state


def _fits(state: dict[int, dict[str, Any]], optimizer: torch.optim.Optimizer) -> bool:
    """Whether every moment has the shape of the parameter at its place."""
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    return all(
        index < len(shapes) and value.shape in (torch.Size(), shapes[index])
        for index, fields in state.items()
        for value in fields.values()
    )
