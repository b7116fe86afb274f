"""DISTS (arXiv 2004.07728): structure and texture similarity, from weights the user supplies.

The convolutions are ImageNet's VGG16, with an L2 pooling in place of its maximum; the
per-channel weights of texture (alpha) and structure (beta) are the authors'. The file is
safetensors with `conv.N.weight`, `conv.N.bias`, `alpha` and `beta`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.perceptual.convolutions import (
    REMEDY,
    VGG16,
    Convolutions,
    misshapen,
    read_weights,
)

_C1 = _C2 = 1e-6


class Dists(nn.Module):
    """DISTS between batches of pictures.

    Args:
        weights: by name, as in the file.

    Raises:
        WeightsError: a tensor has another shape.
        KeyError: a tensor is missing.
    """

    shift: Tensor
    scale: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._features = Convolutions(weights, VGG16, l2_pool)
        self._channels = [3, *self._features.channels]  # the picture itself is the first feature
        alpha, beta = (weights[name].double().flatten() for name in ("alpha", "beta"))
        for name, tensor in (("alpha", alpha), ("beta", beta)):
            if len(tensor) != sum(self._channels):
                raise misshapen(name, tensor)
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", (alpha / total).float())
        self.register_buffer("beta", (beta / total).float())
        self.register_buffer("shift", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    @classmethod
    def from_file(cls, path: Path) -> "Dists":
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
        """Distance of each pair of "b 3 h w" pictures in [-1, 1]: "b"; 0 for equal ones.

        Source: Eqs. 4 to 6 of the paper.
        """
        return self.between(self.features(a), self.features(b))

    def between(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Distance of each pair of `features`: "b"."""
        similarity = found[0].new_zeros(len(found[0]))
        pairs = zip(found, wanted, strict=True)
        alphas, betas = (torch.split(w, self._channels) for w in (self.alpha, self.beta))
        for (x, y), alpha, beta in zip(pairs, alphas, betas, strict=True):
            x_mean, y_mean = x.mean((2, 3)), y.mean((2, 3))
            x_rest, y_rest = x - x_mean[..., None, None], y - y_mean[..., None, None]
            texture = (2 * x_mean * y_mean + _C1) / (x_mean**2 + y_mean**2 + _C1)
            covariance = (x_rest * y_rest).mean((2, 3))
            variances = x_rest.square().mean((2, 3)) + y_rest.square().mean((2, 3))
            structure = (2 * covariance + _C2) / (variances + _C2)
            similarity = similarity + (alpha * texture + beta * structure).sum(1)
        return 1 - similarity

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What "b 3 h w" pictures in [-1, 1] are compared by, themselves first."""
        x = (pictures + 1) / 2
        features = self._features((x - self.shift) / self.scale)
        return [x, *(feature.to(x) for feature in features)]  # autocast may give fewer bits


def l2_pool(x: Tensor, _: int) -> Tensor:
    """Halve "b c h w": root of the Hann-weighted mean square of 3 x 3 pixels, zeros around.

    Source: Eq. 2 of the paper, with the window of the authors' program.
    """
    hann = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    window = (hann[:, None] * hann).expand(channels, 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()
