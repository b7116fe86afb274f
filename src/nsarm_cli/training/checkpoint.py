"""Save and resume a run: model, optimiser, step and generator state, atomically, no pickles."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError

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
        model = _below(tensors, "model.")
        module.load_state_dict(model, strict=True)
        optimizer.load_state_dict(
            {
                "state": _optimizer_state(_below(tensors, "optimizer.")),
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
        torch.set_rng_state(tensors[_GENERATOR])
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: does not continue this run ({reason}); "
            "use another --out folder or the configuration it was made with"
        ) from error
    return step


def save_atomically(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write safetensors under a temporary name, flush to disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        save_file(plain, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _optimizer_state(flat: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = value
    return state
