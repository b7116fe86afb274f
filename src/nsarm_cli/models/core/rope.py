"""Two-dimensional rotary positions over grids of different sizes (Infinity, arXiv 2412.04431).

Cells of every scale are placed on one common grid, so that the same place in the
picture has nearly the same position at each scale.

Letters: b batch, n heads, l tokens, e width of one head.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nsarm_cli.models.core.schedule import Grid


def rope_table(
    grids: Sequence[Grid],
    head_width: int,
    position_grid: Grid,
    settle: Callable[[Tensor], Tensor] = torch.round,
) -> Tensor:
    """Cosines and sines for the cells of several grids, one after the other.

    Args:
        grids: (height, width) of each scale.
        head_width: e, a multiple of 4; the first half of the pairs turns with the row,
            the second with the column.
        position_grid: grid that positions are stretched to.
        settle: what becomes of a stretched position; NSARM rounds half to even.

    Returns:
        "2 l (e/2)", float32: cosines, then sines.
    """
    if head_width % 4:
        raise ValueError(f"head width {head_width} is not a multiple of 4")
    half = head_width // 2
    frequency = 1.0 / (10000.0 ** (torch.arange(0, half, 2).float() / half))
    angles = []
    for height, width in grids:
        y = settle(torch.arange(height).float() * (position_grid[0] / height))
        x = settle(torch.arange(width).float() * (position_grid[1] / width))
        rows = (y[:, None] * frequency)[:, None].expand(height, width, -1)
        columns = (x[:, None] * frequency)[None].expand(height, width, -1)
        angles.append(torch.cat([rows, columns], dim=-1).reshape(height * width, half))
    angle = torch.cat(angles)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn adjacent pairs of "b n l e" by the angles of "2 l (e/2)"; returns the type of x."""
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cosine, sine = table
    turned = torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)
