"""The losses of JPEG (8x8 DCT, 4:2:0), without the file.

Letters: b batch, h w pixels, n blocks of 8x8.

Source: ITU-T T.81 annex A and K.1 (DCT, tables), JFIF (colour); as a step of the degradation,
Real-ESRGAN (arXiv 2107.10833), classical degradation model (JPEG compression).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Rows are vertical frequencies. Upstream: the luma table is transposed. We: as in the standard
# (and in every encoder), because the purpose is to look like real files.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
YCC_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
# Two blocks of luma, one of sub-sampled chroma.
MACROBLOCK = 16


def quality_factor(quality: float) -> float:
    """What the tables are multiplied by: 1 at quality 50, 0.1 at 95, 0 at 100."""
    return (5000 / quality if quality < 50 else 200 - 2 * quality) / 100


def _dct() -> Tensor:
    """The orthonormal DCT of a flattened block: "64 64", frequencies by pixels."""
    pixel = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * pixel[None, :] + 1) * pixel[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return torch.kron(basis, basis).float()


def _round_trip(plane: Tensor, table: tuple[tuple[int, ...], ...], factor: float) -> Tensor:
    """Quantise the DCT of "c h w" (sides multiples of 8, levels around 0), and return."""
    dct = _dct().to(plane.device)
    # A step under 1 is not in the format. It only matters above quality 95.
    steps = (torch.tensor(table, device=plane.device).flatten() * factor).clamp(min=1)
    blocks = rearrange(plane, "c (h y) (w x) -> (c h w) (y x)", y=8, x=8)
    frequencies = torch.round(blocks @ dct.T / steps) * steps
    return rearrange(
        frequencies @ dct,
        "(c h w) (y x) -> c (h y) (w x)",
        c=plane.shape[0],
        h=plane.shape[1] // 8,
        y=8,
        x=8,
    )


def jpeg_round_trip(x: Tensor, quality: float) -> Tensor:
    """Compress and decompress one picture.

    The picture is padded with black at the right and the bottom to a multiple of 16, chroma is
    the mean of 2x2 pixels and comes back by repetition. Unlike a file, colours, chroma and the
    result are not rounded to integers, and neither are the steps of quantisation.

    Args:
        x: "3 h w", float32, clamped to [0, 1].
        quality: above 0, 100 at most; need not be an integer.

    Returns:
        The picture, shape of x, in [0, 1], not rounded.

    Raises:
        ValueError: quality is outside its range.
    """
    if not 0 < quality <= 100:
        raise ValueError(f"JPEG quality {quality} is outside (0, 100]")
    factor = quality_factor(quality)
    height, width = x.shape[-2:]
    padding = (0, -width % MACROBLOCK, 0, -height % MACROBLOCK)
    levels = F.pad(x.clamp(0, 1) * 255, padding)
    ycc = torch.tensordot(torch.tensor(RGB_TO_YCC, device=x.device), levels, dims=1)
    luma = _round_trip(ycc[:1] - 128, LUMA_TABLE, factor) + 128
    # Chroma is already around 0.
    chroma = _round_trip(F.avg_pool2d(ycc[1:], 2), CHROMA_TABLE, factor)
    chroma = F.interpolate(chroma[None], scale_factor=2, mode="nearest")[0]
    ycc = torch.cat((luma, chroma))
    rgb: Tensor = torch.tensordot(torch.tensor(YCC_TO_RGB, device=x.device), ycc, dims=1)
    return (rgb / 255).clamp(0, 1)[:, :height, :width]
