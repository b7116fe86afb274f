"""Which model runs when the user names none."""

from collections.abc import Callable
from pathlib import Path

import torch

from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference
from nsarm_cli.weights.catalog import load_catalog
from nsarm_cli.weights.folder import read_config
from nsarm_cli.weights.locate import how_to_install
from nsarm_cli.weights.store import Store

BEST = "nsarm-8b"
"""Runs by default where it is installed and a GPU holds it."""

SMALL = "nsarm-nano"
"""Comes with the package, so it is always there."""

Fits = Callable[[Path, torch.device, torch.dtype], tuple[bool, str]]
"""Whether a device holds the model of a folder in a type, and the reason in a few words."""


def choose_model(device: torch.device, dtype: torch.dtype, fits: Fits) -> tuple[str, str]:
    """Choose the model.

    Args:
        device: where it will run.
        dtype: of its weights.
        fits: decides whether the device holds the best model; asked only when it is installed.

    Returns:
        A name of `weights.toml`, and the reason with the way to the other model, in a few words.

    Raises:
        ConfigError: the catalogue is damaged.
        WeightsError: the configuration of an installed model is damaged.
    """
    entry = load_catalog().get(BEST)
    folder = None if entry is None else Store().runnable(entry)
    if entry is None:
        return SMALL, "the default: it comes with nsarm; --model takes another"
    if folder is None:
        return SMALL, f"the default: {BEST} is not installed; {how_to_install(BEST)}"
    able, reason = fits(folder, device, dtype)
    if not able:
        return SMALL, f"the default: {reason}; --model {BEST} runs it nevertheless"
    return BEST, f"the default: it is installed and {reason}; --model {SMALL} is much quicker"


def weights_fit(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[bool, str]:
    """Compare a model's weights and cached keys and values with a GPU's free memory.

    A processor is never found able: its memory may hold the model, but a picture would take
    hours, which nobody expects of a default.
    """
    config = read_config(folder)
    if device.type == "cpu":
        return False, f"{config.name} would take hours per picture on a processor"
    needed, free = needed_bytes(config, dtype), free_bytes(device)
    if needed > free:
        return False, (
            f"{config.name} needs {needed / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB are free on {device}"
        )
    return True, f"its {needed / 1e9:.1f} GB fit into the {free / 1e9:.1f} GB free on {device}"


def needed_bytes(config: NsarmConfig, dtype: torch.dtype) -> int:
    """Bytes that one window takes at least: the weights, and the keys and values of all scales."""
    with torch.device("meta"):
        model = cast_for_inference(NsarmModel(config), dtype)
    weights = sum(int(tensor.nbytes) for tensor in model.state_dict().values())
    transformer = config.transformer
    cache = 2 * transformer.depth * transformer.width * config.schedule.total * dtype.itemsize
    return weights + cache


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
