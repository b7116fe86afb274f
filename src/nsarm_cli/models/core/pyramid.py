"""Multi-scale residual pyramid (NSARM Alg. 1; VAR arXiv 2404.02905 Alg. 1 and 2).

A feature map is explained scale by scale: each scale quantises what the coarser
ones left over. What differs between families is passed in: how to quantise and
how to enlarge.

Letters: b batch, c latent channels, h w latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.models.core.schedule import Grid

Resize = Callable[[Tensor, Grid], Tensor]
Enlarge = Callable[[Tensor, Grid, int], Tensor]
"""Codes "b c h_k w_k", the full size and k, to "b c h w"."""
Quantise = Callable[[Tensor], Tensor]
"""Residual "b c h w" to codes "b c h w" (not straight-through)."""


def area(x: Tensor, size: Grid) -> Tensor:
    """Shrink "b c h w" by averaging the cells under each output cell."""
    return x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size)


def bilinear(x: Tensor, size: Grid) -> Tensor:
    """Resize "b c h w" linearly, half-pixel centres, no antialiasing.

    Equal to the trilinear resize of Infinity at one frame.
    """
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def enlarge_bilinear(codes: Tensor, size: Grid, k: int) -> Tensor:
    """Resize codes linearly, alike at every scale."""
    return bilinear(codes, size)


@dataclass(frozen=True)
class ResidualPyramid:
    """Splits a feature map into per-scale codes and sums them up again.

    Attributes:
        grids: (height, width) of each scale in latents; the last is the full size.
        enlarge: brings codes of one scale to the full size, in a way that may depend on it.
        shrink: brings a residual, or the running sum, to one scale.
    """

    grids: tuple[Grid, ...]
    enlarge: Enlarge = enlarge_bilinear
    shrink: Resize = area

    @property
    def size(self) -> Grid:
        """The full size, in latents."""
        return self.grids[-1]

    def residual(self, target: Tensor, feature: Tensor | None, k: int) -> Tensor:
        """What scale `k` must still explain of `target`, "b c h_k w_k"."""
        left = target if feature is None else target - feature
        return self.shrink(left, self.grids[k])

    def add(self, feature: Tensor | None, codes: Tensor, k: int) -> Tensor:
        """The running sum with the codes of scale `k`, at full size."""
        enlarged = self.enlarge(codes, self.size, k)
        return enlarged if feature is None else feature + enlarged

    def next_input(self, feature: Tensor, k: int) -> Tensor:
        """The running sum as the input of scale `k`, "b c h_k w_k"."""
        return self.shrink(feature, self.grids[k])

    def decompose(self, target: Tensor, quantise: Quantise) -> tuple[list[Tensor], list[Tensor]]:
        """Residuals and their codes for every scale, coarse to fine (Alg. 1)."""
        residuals: list[Tensor] = []
        codes: list[Tensor] = []
        feature: Tensor | None = None
        for k in range(len(self.grids)):
            residuals.append(self.residual(target, feature, k))
            codes.append(quantise(residuals[-1]))
            feature = self.add(feature, codes[-1], k)
        return residuals, codes

    def compose(self, codes: Sequence[Tensor]) -> Tensor:
        """Sum of the codes of the first scales, at full size."""
        feature: Tensor | None = None
        for k, scale_codes in enumerate(codes):
            feature = self.add(feature, scale_codes, k)
        if feature is None:
            raise ValueError("compose needs the codes of at least one scale")
        return feature


def leading_residuals(target: Tensor, grids: Sequence[Grid], quantise: Quantise) -> list[Tensor]:
    """Residuals of the first scales of a feature map, before quantisation.

    Args:
        target: "b c h w" at full size.
        grids: (height, width) of the scales wanted, coarse to fine, at most the full size.
        quantise: residual to codes; each residual is against the codes of the scales before.

    Returns:
        "b c h_k w_k" per scale.
    """
    pyramid = ResidualPyramid((*grids, (target.shape[-2], target.shape[-1])))
    residuals: list[Tensor] = []
    feature: Tensor | None = None
    for k in range(len(grids)):
        residuals.append(pyramid.residual(target, feature, k))
        feature = pyramid.add(feature, quantise(residuals[-1]), k)
    return residuals
