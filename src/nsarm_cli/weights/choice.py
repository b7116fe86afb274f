"""Which model runs when the user names none."""

from collections.abc import Callable
from pathlib import Path

import torch

from nsarm_cli.weights.catalog import load_catalog
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
