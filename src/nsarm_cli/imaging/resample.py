"""Lanczos resize of a picture that passes by row by row.

Letters: c channels, r rows of one strip, w width in pixels.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.imaging.rows import STRIP, RowReader, Rows

_RADIUS = 3
"""Of the Lanczos kernel, in pixels of the coarser side."""


def resize_rows(rows: Rows, height: int, width: int) -> Rows:
    """Resize with Pillow's Lanczos filter, antialiased when shrinking, without its rounding.

    Memory holds the rows that one strip of the result depends on.

    Args:
        rows: of any number of channels.
        height: of the result, in pixels.
        width: likewise.

    Returns:
        The picture in the new size, clamped to [-1, 1]; `rows` itself where nothing changes.
    """
    if (height, width) == (rows.height, rows.width):
        return rows
    return Rows(height, width, _strips(rows, height, width))


def _strips(rows: Rows, height: int, width: int) -> Iterator[Tensor]:
    step = rows.height / height
    reach = math.ceil(_RADIUS * max(step, 1)) + 1
    reader = RowReader(rows)
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        above = max(math.floor(top * step) - reach, 0)
        below = min(math.ceil(bottom * step) + reach, rows.height)
        band = reader.read(above, below)
        # Pillow looks beyond the box for the filter, so strips meet without a seam.
        box = (0, top * step - above, rows.width, min(bottom * step, rows.height) - above)
        yield torch.stack([_resize(plane, (width, bottom - top), box) for plane in band])


def _resize(plane: Tensor, size: tuple[int, int], box: tuple[float, float, float, float]) -> Tensor:
    image = Image.fromarray(plane.contiguous().numpy())
    resized = np.array(image.resize(size, Image.Resampling.LANCZOS, box), dtype=np.float32)
    return torch.from_numpy(resized).clamp_(-1, 1)
