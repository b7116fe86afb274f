"""LPIPS (arXiv 1801.03924), version 0.1, from weights that the user supplies.

The convolutions are ImageNet's AlexNet or VGG16; the per-channel weights are LPIPS v0.1.
The file is safetensors with `conv.N.weight`, `conv.N.bias` and `lin.N`; the number of
convolutions tells which network it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.perceptual.convolutions import (
    ALEXNET,
    REMEDY,
    VGG16,
    Convolutions,
    misshapen,
    read_weights,
)

_NETWORKS = {5: ALEXNET, 13: VGG16}


class PerceptualDistance(nn.Module):
    """LPIPS distance between two batches of pictures; no parameter is trained."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = sum(name.endswith(".weight") and name.startswith("conv.") for name in weights)
        if count not in _NETWORKS:
            raise WeightsError(
                f"perceptual weights with {count} convolutions are neither AlexNet (5) nor "
                f"VGG16 (13); {REMEDY}"
            )
        self._features = Convolutions(weights, _NETWORKS[count])
        for i, channels in enumerate(self._features.channels):
            lin = weights[f"lin.{i}"]
            if lin.numel() != channels:
                raise misshapen(f"lin.{i}", lin)
            self.register_buffer(f"lin{i}", lin.float().reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    @classmethod
    def from_file(cls, path: Path) -> "PerceptualDistance":
        """Load the weights from a safetensors file.

        Raises:
            WeightsError: the file is missing, not safetensors, or lacks a tensor.
        """
        try:
            return cls(read_weights(path))
        except KeyError as error:
            raise WeightsError(f"{path}: lacks the tensor {error}; {REMEDY}") from error

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean distance of "b 3 h w" pictures in [-1, 1]; 0 for equal ones."""
        return self.each(a, b).mean()

    def each(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair of "b 3 h w" pictures in [-1, 1]: "b"."""
        with torch.no_grad():
            wanted = self.features(b)
        return self.between(self.features(a), wanted)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What "b 3 h w" pictures in [-1, 1] are compared by."""
        features: list[Tensor] = self._features((pictures - self.shift) / self.scale)
        return features

    def between(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Distance of each pair of `features`: "b"."""
        # autocast may give features of fewer bits; their sum has 32
        precision = torch.promote_types(found[0].dtype, torch.float32)
        total = found[0].new_zeros(len(found[0]), dtype=precision)
        for i, (x, y) in enumerate(zip(found, wanted, strict=True)):
            lin = self.get_buffer(f"lin{i}")
            total = total + ((_unit(x) - _unit(y)) ** 2 * lin.to(x)).sum(1).mean((1, 2))
        return total


def _unit(x: Tensor) -> Tensor:
    # Authors: x / (norm + 1e-10). We: 1e-10 under the root, because features that are all zero
    # would have an infinite gradient in training; the values differ by less than 1e-6.
    return x * torch.rsqrt(x.float().square().sum(1, keepdim=True) + 1e-10).to(x.dtype)
