"""LPIPS (arXiv 1801.03924) as a training loss, from weights the user supplies.

The convolutions are ImageNet's AlexNet or VGG16; the per-channel weights are LPIPS v0.1.
The file is safetensors with `conv.N.weight`, `conv.N.bias` and `lin.N`; the number of
convolutions tells which network it is.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError

_ALEX = (
    *("conv4", "tap", "pool3"),
    *("conv", "tap", "pool3"),
    *("conv", "tap", "conv", "tap", "conv", "tap"),
)
_VGG = (
    *("conv", "conv", "tap", "pool2"),
    *("conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap", "pool2"),
    *("conv", "conv", "conv", "tap"),
)
_LAYOUTS = {5: _ALEX, 13: _VGG}


class PerceptualDistance(nn.Module):
    """LPIPS distance between two batches of pictures; no parameter is trained."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        count = sum(name.endswith(".weight") and name.startswith("conv.") for name in weights)
        if count not in _LAYOUTS:
            raise WeightsError(
                f"perceptual weights with {count} convolutions are neither AlexNet (5) nor "
                "VGG16 (13); make the file with benchmarks/lpips_weights.py"
            )
        self._layout = _LAYOUTS[count]
        self._check(weights)
        for i in range(count):
            self.register_buffer(f"weight{i}", weights[f"conv.{i}.weight"].float())
            self.register_buffer(f"bias{i}", weights[f"conv.{i}.bias"].float())
        for i in range(self._layout.count("tap")):
            self.register_buffer(f"lin{i}", weights[f"lin.{i}"].float().reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    @classmethod
    def from_file(cls, path: Path) -> "PerceptualDistance":
        """Load the weights from a safetensors file.

        Raises:
            WeightsError: the file is missing, not safetensors, or lacks a tensor.
        """
        try:
            return cls(load_file(path))
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{path}: cannot be read as safetensors ({error}); "
                "make it with benchmarks/lpips_weights.py"
            ) from error
        except KeyError as error:
            raise WeightsError(
                f"{path}: lacks the tensor {error}; make it with benchmarks/lpips_weights.py"
            ) from error

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean distance of "b 3 h w" pictures in [-1, 1]; 0 for equal ones."""
        with torch.no_grad():
            wanted = self._features(b)
        total = a.new_zeros(())
        for i, (x, y) in enumerate(zip(self._features(a), wanted, strict=True)):
            lin = self.get_buffer(f"lin{i}")
            total = total + ((_unit(x) - _unit(y)) ** 2 * lin.to(x)).sum(1).mean()
        return total

    def _check(self, weights: dict[str, Tensor]) -> None:
        """Raise a WeightsError or KeyError unless each convolution takes what the last gives."""
        channels, conv, tap = 3, 0, 0
        for step in self._layout:
            if step.startswith("conv"):
                weight, bias = weights[f"conv.{conv}.weight"], weights[f"conv.{conv}.bias"]
                if (
                    weight.ndim != 4
                    or weight.shape[1] != channels
                    or bias.shape != weight.shape[:1]
                ):
                    raise _misshapen(f"conv.{conv}", weight)
                channels, conv = len(weight), conv + 1
            elif step == "tap":
                if weights[f"lin.{tap}"].numel() != channels:
                    raise _misshapen(f"lin.{tap}", weights[f"lin.{tap}"])
                tap += 1

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures - self.shift) / self.scale
        features: list[Tensor] = []
        conv = 0
        for step in self._layout:
            if step == "tap":
                features.append(x)
            elif step.startswith("pool"):
                x = F.max_pool2d(x, int(step[-1]), 2)
            else:
                weight, bias = self.get_buffer(f"weight{conv}"), self.get_buffer(f"bias{conv}")
                conv += 1
                stride = 4 if step == "conv4" else 1
                padding = 2 if weight.shape[-1] > 3 else 1
                x = F.relu(F.conv2d(x, weight.to(x), bias.to(x), stride, padding))
        return features


def jitter(a: Tensor, b: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Cut up to three rows and columns off both pictures, another number at each step.

    AlexNet looks at every fourth pixel, in phase with a decoder that unfolds 4 x 4 blocks,
    and would not see a pattern that repeats with each block.
    """
    top, left = step % 4, step // 4 % 4
    return a[..., top:, left:], b[..., top:, left:]


def _misshapen(name: str, tensor: Tensor) -> WeightsError:
    return WeightsError(
        f"perceptual weights: {name} has the shape {tuple(tensor.shape)}, which does not fit the "
        "network; make the file with benchmarks/lpips_weights.py"
    )


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.float().square().sum(1, keepdim=True) + 1e-10).to(x.dtype)
