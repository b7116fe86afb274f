"""The convolutions of AlexNet and VGG16, with the places where features are taken.

Letters: b batch, c channels, h w height and width in pixels.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError

REMEDY = "make the file with nsarm weights measures (docs/evaluation.md)"

ALEXNET = (
    *("conv4", "tap", "pool3"),
    *("conv", "tap", "pool3"),
    *("conv", "tap", "conv", "tap", "conv", "tap"),
)
"""Steps of a network: "conv4" has a stride of 4, "pool3" is 3 pixels wide, "tap" gives features."""

VGG16 = (
    *("conv", "conv", "tap", "pool2"),
    *("conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap"),
)

Pool = Callable[[Tensor, int], Tensor]
"""Halves "b c h w", given the width of its window."""


def max_pool(x: Tensor, size: int) -> Tensor:
    """Take the greatest of each window, every second pixel."""
    return F.max_pool2d(x, size, 2)


class Convolutions(nn.Module):
    """A stack of convolutions, each followed by a rectifier; nothing in it is trained.

    Args:
        weights: `conv.N.weight`, "out in height width", and `conv.N.bias`, from N = 0.
        steps: `ALEXNET` or `VGG16`.
        pool: how features are halved.

    Raises:
        WeightsError: a convolution does not take what the one before gives.
        KeyError: a tensor is missing.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], steps: tuple[str, ...], pool: Pool = max_pool
    ) -> None:
        super().__init__()
        self._steps = steps
        self._pool = pool
        self.channels: list[int] = []
        """Of each tap."""
        width = 3
        for step in steps:
            if step.startswith("conv"):
                width = self._add(weights, width)
            elif step == "tap":
                self.channels.append(width)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the features of "b 3 h w" at each tap, "b c h w", finest first."""
        features: list[Tensor] = []
        conv = 0
        for step in self._steps:
            if step == "tap":
                features.append(x)
            elif step.startswith("pool"):
                x = self._pool(x, int(step[-1]))
            else:
                weight, bias = self.get_buffer(f"weight{conv}"), self.get_buffer(f"bias{conv}")
                conv += 1
                stride = 4 if step == "conv4" else 1
                padding = 2 if weight.shape[-1] > 3 else 1
                x = F.relu(F.conv2d(x, weight.to(x), bias.to(x), stride, padding))
        return features

    def _add(self, weights: Mapping[str, Tensor], width: int) -> int:
        """Take the next convolution, whose input has `width` channels; returns its own number."""
        name = f"conv.{len(list(self.buffers())) // 2}"
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if weight.ndim != 4 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise misshapen(name, weight)
        number = name.removeprefix("conv.")
        self.register_buffer(f"weight{number}", weight.float())
        self.register_buffer(f"bias{number}", bias.float())
        return len(weight)


def misshapen(name: str, tensor: Tensor) -> WeightsError:
    """Say that a tensor is not of the network."""
    return WeightsError(
        f"perceptual weights: {name} has the shape {tuple(tensor.shape)}, which does not fit the "
        f"network; {REMEDY}"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        WeightsError: it is missing or not safetensors.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}); {REMEDY}") from error
