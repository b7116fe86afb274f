"""Residual vector quantisation with one codebook for all scales (VAR arXiv 2404.02905, Alg. 1).

Letters: b batch, l cells of a scale, d latent channels, h w latents, v codebook entries,
K scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.schedule import Grid


def to_tokens(x: Tensor) -> Tensor:
    """Flatten a map "b d h w" to cells "b (h w) d"."""
    return rearrange(x, "b d h w -> b (h w) d")


def from_tokens(tokens: Tensor, height: int) -> Tensor:
    """Undo `to_tokens`; `height` is the number of rows."""
    return rearrange(tokens, "b (h w) d -> b d h w", h=height)


@dataclass(frozen=True)
class Tokens:
    """A feature map as a model sees it.

    Attributes:
        indices: "b l" of each scale.
        inputs: tokens "b l d" of scales 1 to K-1, each the sum of the coarser scales.
        feature: sum of all codes, "b d h w".
        last_residual: "b d h w", what the last scale should explain, before it is quantised.
    """

    indices: list[Tensor]
    inputs: list[Tensor]
    feature: Tensor
    last_residual: Tensor


def blend_of_scale(k: int, scales: int, blends: int) -> int:
    """Which of the convolutions serves scale `k`: the nearest, of two equally near the later.

    Scales are spread evenly from 0 to 1, convolutions from 1/(3 n) to 1 - 1/(3 n). With ten
    scales there are ties, which the authors' code leaves to rounding; so this is exact.
    """
    first = Fraction(1, 3 * blends)
    step = (1 - 2 * first) / max(1, blends - 1)
    place = Fraction(k, max(1, scales - 1))
    return min(range(blends), key=lambda i: (abs(first + i * step - place), -i))


class Quantiser(nn.Module):
    """Codebook, and the convolutions that smooth what a coarse scale adds.

    Args:
        codes: v.
        channels: d.
        blends: number of convolutions; each serves the scales nearest to it.
    """

    def __init__(self, codes: int, channels: int, blends: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codes, channels)
        self.blends = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blends)
        )

    def nearest(self, latents: Tensor) -> Tensor:
        """Indices "b l" of the entries nearest to "b d h w", by Euclidean distance."""
        cells = to_tokens(latents.float())
        entries = self.codebook.weight.float()
        flat = cells.reshape(-1, cells.shape[-1])
        squares = flat.square().sum(1, keepdim=True) + entries.square().sum(1)
        distance = torch.addmm(squares, flat, entries.T, alpha=-2)
        return distance.argmin(1).view(cells.shape[:2])

    def codes(self, indices: Tensor, grid: Grid) -> Tensor:
        """Entries "b d h w" of indices "b (h w)", float32."""
        return from_tokens(F.embedding(indices, self.codebook.weight.float()), grid[0])

    def blend(self, x: Tensor, k: int, scales: int) -> Tensor:
        """Half of "b d h w", and half of its convolution for scale `k` of `scales`."""
        conv = self.blends[blend_of_scale(k, scales, len(self.blends))]
        return 0.5 * x + 0.5 * conv(x).float()  # type: ignore[no-any-return]

    def pyramid(self, grids: Sequence[Grid]) -> ResidualPyramid:
        """The residual pyramid over these grids, in latents.

        Coarse codes are enlarged by bicubic interpolation and blended; those of the last
        scale are added as they are, as VARSR was trained.
        """
        last = len(grids) - 1

        def enlarge(codes: Tensor, size: Grid, k: int) -> Tensor:
            if k == last:
                return codes
            if codes.shape[-2:] != size:
                codes = F.interpolate(codes, size, mode="bicubic", align_corners=False)
            return self.blend(codes, k, len(grids))

        return ResidualPyramid(tuple(grids), enlarge)

    def tokenise(self, latents: Tensor, grids: Sequence[Grid]) -> Tokens:
        """Split "b d h w" latents into the indices of all scales."""
        pyramid = self.pyramid(grids)
        indices: list[Tensor] = []
        inputs: list[Tensor] = []
        feature: Tensor | None = None
        residual = latents
        for k, grid in enumerate(pyramid.grids):
            if feature is not None:
                inputs.append(to_tokens(pyramid.next_input(feature, k)))
            residual = pyramid.residual(latents, feature, k)
            indices.append(self.nearest(residual))
            feature = pyramid.add(feature, self.codes(indices[-1], grid), k)
        if feature is None:
            raise ValueError("a pyramid has at least one scale")
        return Tokens(indices, inputs, feature, residual)
