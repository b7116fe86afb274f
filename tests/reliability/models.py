"""A model folder small enough to be copied and loaded thousands of times."""

import json
from pathlib import Path

from safetensors.torch import save_file
from tests.published import MICRO_8B, make_model


def save_small_model(folder: Path) -> Path:
    """Write a scaled NSARM-8B of random numbers."""
    folder.mkdir()
    tensors = {k: v.contiguous() for k, v in make_model().state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    config = {"family": "nsarm", "config": MICRO_8B.to_dict()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
