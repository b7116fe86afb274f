"""3x3 convolution with a quarter of the multiplications, band by band, for processors.

Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a tile of 4x4 results is made from 6x6
inputs by 36 products per pair of channels, where the definition takes 144. Inputs, weights and
products go through fixed linear maps; written with Kronecker products these are matrix products
of 36 x 36, 36 x 9 and 16 x 36 numbers. In float32 the result differs from the definition's by about
1e-5 of its largest value.

The map is worked off in bands of rows, of which only one is in memory, in blocks that fit into a
processor's cache. A band is read and written by functions, so what comes before a convolution (a
norm, an enlargement) and after it (a sum) needs no map of its own.

Letters: c channels in, k channels out, h w height and width, n rows and m columns of tiles.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

TILE = 4
"""Side of a tile of results."""

_SIDE = TILE + 2
"""Side of the inputs of a tile."""

Read = Callable[[int, int, Tensor], None]
"""`read(first, last, band)` fills "c (last - first) w" with these rows of the input."""

Write = Callable[[int, int, Tensor], None]
"""`write(first, last, band)` takes "k (last - first) w", these rows of the result, without bias."""

# Lavin and Gray, section 4.3, for the points 0, 1, -1, 2, -2 and infinity.
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
_WEIGHT = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float32
)  # 24 times, so that the numbers are whole
_RESULT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float32,
)
_INPUT2, _RESULT2 = torch.kron(_INPUT, _INPUT), torch.kron(_RESULT, _RESULT)
_WEIGHT2 = torch.kron(_WEIGHT, _WEIGHT) / 24**2

_FEW_CHANNELS = 256
_TILES = (64, 128)
"""Tiles in a block with few and with many channels: fewer stay in a cache of 1 MiB, more use the
weights, which are larger then, more often."""

_COLUMNS = 64
"""Most tiles side by side."""


def transform_weight(weight: Tensor) -> Tensor:
    """Weights "k c 3 3" as they are multiplied, "36 k c"."""
    k, c = weight.shape[:2]
    taps = weight.reshape(k * c, 9).T
    return (_WEIGHT2 @ taps).view(_SIDE**2, k, c)


def convolve(weight: Tensor, height: int, width: int, read: Read, write: Write) -> None:
    """Convolve a map with zeros around it; the result has its size.

    Args:
        weight: "k c 3 3", float32.
        height: of the map.
        width: of the map.
        read: gives its rows, each once, from the first to the last.
        write: takes rows of the result, in the same order.
    """
    outputs, inputs = weight.shape[:2]
    products = transform_weight(weight)
    columns = math.ceil(width / TILE)
    m = min(columns, _COLUMNS)
    n = min(math.ceil(height / TILE), max(1, _TILES[inputs >= _FEW_CHANNELS] // m))
    # Made once: what large tensors cost most here is memory that is new to the process.
    rows = torch.zeros(inputs, TILE * n + 2, TILE * columns + 2)
    done = torch.empty(outputs, TILE * n, TILE * columns)
    block = _Block(inputs, outputs, n, m, products)
    inner = rows[:, :, 1 : width + 1]
    have = 0
    for top in range(0, height, TILE * n):
        # Two rows are shared with the band before, and at the top the row above the map is zero.
        if top:
            rows[:, :2] = rows[:, -2:].clone()
        first, last = have, min(top + TILE * n + 1, height)
        at = first - (top - 1)
        if last > first:
            read(first, last, inner[:, at : at + last - first])
        rows[:, at + last - first :].zero_()
        have = last
        tiles = rows.unfold(1, _SIDE, TILE).unfold(2, _SIDE, TILE).permute(3, 4, 0, 1, 2)
        results = done.view(outputs, n, TILE, columns, TILE)
        for left in range(0, columns, m):
            start = min(left, columns - m)  # the last block overlaps instead of being cut
            block.run(tiles[..., start : start + m], results[..., start : start + m, :])
        bottom = min(top + TILE * n, height)
        write(top, bottom, done[:, : bottom - top, :width])


class _Block:
    """Room for the tiles that are computed together."""

    def __init__(self, inputs: int, outputs: int, n: int, m: int, products: Tensor) -> None:
        self._products = products
        self._tiles = torch.empty(_SIDE, _SIDE, inputs, n, m)
        self._in = torch.empty(_SIDE**2, inputs * n * m)
        self._out = torch.empty(_SIDE**2, outputs, n * m)
        self._results = torch.empty(TILE**2, outputs * n * m)
        self._shape = (TILE, TILE, outputs, n, m)

    def run(self, tiles: Tensor, results: Tensor) -> None:
        """From inputs "6 6 c n m" to results "k n 4 m 4"."""
        self._tiles.copy_(tiles)
        torch.mm(_INPUT2, self._tiles.view(_SIDE**2, -1), out=self._in)
        outputs, count = self._out.shape[1:]
        torch.bmm(self._products, self._in.view(_SIDE**2, -1, count), out=self._out)
        torch.mm(_RESULT2, self._out.view(_SIDE**2, outputs * count), out=self._results)
        results.copy_(self._results.view(self._shape).permute(2, 3, 0, 4, 1))
