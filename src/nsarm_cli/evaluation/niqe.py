"""NIQE: how far the statistics of a picture are from those of undistorted photographs.

Mittal, Soundararajan and Bovik, "Making a 'completely blind' image quality analyzer", IEEE
Signal Processing Letters 20(3), 2013. The model of undistorted photographs is the authors', in
the file that BasicSR distributes (assets/niqe/SOURCE.md).

Where published tables round, so does this module: flat areas have hardly any variance, and there
the rounding of single precision shows in the fourth decimal.

Letters: n blocks, h w height and width in pixels, f features.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from nsarm_cli.evaluation.fidelity import gaussian

BLOCK = 96
"""Side of a block in pixels; what is left at the right and the bottom is not looked at."""

_LUMA = (0.299, 0.587, 0.114)
_HALVING = tuple(x / 256 for x in (-3, -9, 29, 111, 111, 29, -9, -3))
"""Keys' kernel (a = -0.5), widened twice, at the eight pixels around a new one."""

_PRISTINE = Path(__file__).parents[1] / "assets" / "niqe" / "pristine.safetensors"


def niqe(picture: Tensor) -> float:
    """Measure one picture; lower is more natural.

    Args:
        picture: "3 h w", RGB, uint8, at least two blocks large.

    Returns:
        The distance; not a number when fewer than two blocks have any texture.

    Source: Eqs. 1 to 10 of the paper.
    """
    luma = _luma(picture)
    rows, columns = (side // BLOCK for side in luma.shape)
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    half = _halve(_halve((luma / 255).float()).T).T.double() * 255
    features = torch.cat(
        [
            _features(_blocks(_normalise(x), side))
            for x, side in ((luma, BLOCK), (half, BLOCK // 2))
        ],
        dim=1,
    )
    # A block without texture has no widths: the mean leaves out what is no number feature by
    # feature, the covariance block by block, as the authors' program does.
    whole = features[~features.isnan().any(1)]
    if len(whole) < 2:
        return float("nan")
    model = _pristine()
    difference = model["mu"] - features.nanmean(0)
    inverse = torch.linalg.pinv((model["covariance"] + torch.cov(whole.T)) / 2)
    return float((difference @ inverse @ difference).sqrt())


def has_enough_blocks(height: int, width: int) -> bool:
    """Whether a picture of this size has the two blocks that a covariance takes."""
    return (height // BLOCK) * (width // BLOCK) >= 2


@cache
def _pristine() -> dict[str, Tensor]:
    return load_file(_PRISTINE)


def _luma(picture: Tensor) -> Tensor:
    """Round the luma of "3 h w", uint8, to levels of 255: "h w", float64."""
    rgb = picture.float() / 255
    return (rgb.permute(1, 2, 0) @ torch.tensor(_LUMA) * 255).round().double()


def _halve(x: Tensor) -> Tensor:
    """Give "h w" half the height as MATLAB's bicubic `imresize` does: "h/2 w", in its own type."""
    mirrored = torch.cat([x[:3].flip(0), x, x[-3:].flip(0)])  # the edge pixel counts twice
    half = torch.zeros_like(x[::2])
    for place, weight in enumerate(_HALVING):
        half += weight * mirrored[place : place + len(x) : 2]
    return half


def _normalise(luma: Tensor) -> Tensor:
    """Subtract the local mean and divide by the local deviation plus 1 (Eqs. 1 to 3)."""
    window = gaussian(7, 7 / 6).to(luma)[None, None]

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(F.pad(values[None, None], (3, 3, 3, 3), mode="replicate"), window)[0, 0]

    mean = blur(luma)
    variance = (blur(luma**2) - mean**2).abs()
    return (luma - mean) / ((variance + torch.finfo(luma.dtype).eps).sqrt() + 1)


def _blocks(x: Tensor, side: int) -> Tensor:
    """Cut "h w" into blocks: "n side side"."""
    rows, columns = (length // side for length in x.shape)
    return x.reshape(rows, side, columns, side).transpose(1, 2).reshape(-1, side, side)


def _features(blocks: Tensor) -> Tensor:
    """Describe the values of each block and the products of neighbours: "n 18"."""
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _asymmetric_gaussian(blocks * blocks.roll(shift, (1, 2)))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()  # Eq. 8
        features += [shape, mean, left, right]
    return torch.stack(features, 1)


def _asymmetric_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit Eq. 7 to each block "n h w" by moments: shape and the two widths, "n" each.

    The shape is looked up in steps of 0.001 from 0.2 to 10, as the authors' program does.
    """
    squares = x.square()
    left = ((squares * (x < 0)).sum((1, 2)) / (x < 0).sum((1, 2))).sqrt()
    right = ((squares * (x > 0)).sum((1, 2)) / (x > 0).sum((1, 2))).sqrt()
    ratio = left / right
    moment = x.abs().mean((1, 2)).square() / squares.mean((1, 2))
    moment = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = _table()
    # A block without texture has no moments; the authors' lookup gives it the first shape, and
    # only its widths are not numbers.
    shape = shapes[(moments - moment[:, None]).abs().argmin(1)]
    width = (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp().sqrt()
    return shape, left * width, right * width


@cache
def _table() -> tuple[Tensor, Tensor]:
    """Shapes, and the moment ratio of each."""
    shapes = torch.arange(0.2, 10.001, 0.001).double()
    log = 2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    return shapes, log.exp()
