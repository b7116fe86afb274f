"""Colours of transparent pixels, so that edges of what is visible get no halo.

A fully transparent pixel has any colour, often black. A model would blend that into its visible
neighbours. Here the visible colours are spread into the transparent parts before it looks.

Letters: h w height and width in pixels, c channels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nsarm_cli.imaging.profiles import Pixels

_CELL = 4
"""Side in pixels of the cells in which colours are averaged first."""

_Floats = npt.NDArray[np.floating[Any]]


class HiddenColors:
    """The colours of the visible parts, spread over the whole picture.

    Memory is a fraction of the picture's: one colour per cell.

    Args:
        pixels: "h w c", of 8 or 16 bits, not multiplied by alpha.
        alpha: "h w", likewise.
    """

    def __init__(self, pixels: Pixels, alpha: Pixels) -> None:
        rows = [
            _cells(pixels[top : top + 16 * _CELL], alpha[top : top + 16 * _CELL])
            for top in range(0, len(pixels), 16 * _CELL)
        ]
        weighted = np.concatenate([row[0] for row in rows])
        weight = np.concatenate([row[1] for row in rows])
        self._colors = _spread(weighted, weight)

    def fill(self, pixels: Pixels, alpha: Pixels, top: int) -> Pixels:
        """Give the transparent pixels of some rows the colours of what is visible near them.

        Args:
            pixels: "r w c", rows of the picture.
            alpha: "r w".
            top: number of the first row.

        Returns:
            "r w c"; where alpha is above 0 the colours are as they were.
        """
        height, width = alpha.shape
        box = (0, top / _CELL, self._colors.shape[1], (top + height) / _CELL)
        size = (self._colors.shape[1] * _CELL, height)
        filled = [
            np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, box))[
                :, :width
            ].round()
            for plane in np.ascontiguousarray(np.moveaxis(self._colors, -1, 0))
        ]
        hidden = (alpha == 0)[..., None]
        return np.where(hidden, np.stack(filled, -1).astype(pixels.dtype), pixels)


def _cells(pixels: Pixels, alpha: Pixels) -> tuple[_Floats, _Floats]:
    """Average rows in cells: colours times alpha "h w c", and alpha "h w 1"."""
    weight = alpha[..., None].astype(np.float32) / np.iinfo(alpha.dtype).max
    return _reduce(pixels * weight, _CELL), _reduce(weight, _CELL)


def _reduce(x: _Floats, side: int) -> _Floats:
    """Average cells; those at the end count as if the picture went on empty."""
    height, width, channels = x.shape
    x = np.pad(x, ((0, -height % side), (0, -width % side), (0, 0)))
    cells = x.reshape(x.shape[0] // side, side, x.shape[1] // side, side, channels)
    mean: _Floats = cells.mean(axis=(1, 3), dtype=np.float32)
    return mean


def _spread(weighted: _Floats, weight: _Floats) -> _Floats:
    """Fill cells without any visible pixel from coarser and coarser averages."""
    colors: _Floats = weighted / np.maximum(weight, 1e-6)
    empty = weight[..., 0] == 0
    if not empty.any() or weight.size == 1:
        return colors
    coarse = _spread(_reduce(weighted, 2), _reduce(weight, 2))
    size = (coarse.shape[1] * 2, coarse.shape[0] * 2)
    for channel in range(colors.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(coarse[..., channel]))
        wide = np.asarray(plane.resize(size, Image.Resampling.BILINEAR))
        colors[..., channel][empty] = wide[: len(empty), : empty.shape[1]][empty]
    return colors
