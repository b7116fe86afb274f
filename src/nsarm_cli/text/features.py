"""Features of a prompt in a file: safetensors with one tensor named "features".

Letters: m tokens of a prompt, x width of a token.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nsarm_cli.errors import ConfigError

KEY = "features"

LONGEST = 512
"""Most tokens of a prompt: so many were seen in training (Infinity, arXiv 2412.04431)."""


def read_features(path: Path, width: int) -> Tensor:
    """Read the features of a prompt.

    Args:
        path: a safetensors file.
        width: x, what the model takes.

    Returns:
        "m x", float32.

    Raises:
        ConfigError: the file is missing, no safetensors, or its tensor cannot be a prompt.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if KEY not in file.keys():  # noqa: SIM118  (the file is no mapping)
                raise _wrong(path, f'it has no tensor named "{KEY}"')
            shape = tuple(file.get_slice(KEY).get_shape())
            # Before the numbers are read: they could be larger than the memory.
            if len(shape) != 2 or shape[1] != width or not 1 <= shape[0] <= LONGEST:
                raise _wrong(
                    path, f"its tensor is {shape} instead of (1 to {LONGEST}, {width}) numbers"
                )
            features: Tensor = file.get_tensor(KEY)
    except (OSError, SafetensorError) as error:
        raise _wrong(path, f"it cannot be read as safetensors: {error}") from error
    if not features.is_floating_point() or not bool(features.isfinite().all()):
        raise _wrong(path, "its numbers are not all finite floating-point numbers")
    return features.float()


def _wrong(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path}: is not a prompt's features for this model ({reason}); give a file that was "
        "made for it"
    )
