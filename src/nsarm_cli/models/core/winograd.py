"""3x3 convolution with a quarter of the multiplications, band by band, for processors.

Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a tile of 4x4 results is made from 6x6
inputs by 36 products per pair of channels, where the definition takes 144. Inputs, weights and
products go through fixed linear maps; written with Kronecker products these are matrix products
of 36 x 36, 36 x 9 and 16 x 36 numbers. In float32 the result differs from the definition's by about
1e-5 of its largest value.

A convolution behind an enlargement that repeats every number (`TWICE`) is four convolutions with
2x2 taps of the small map, one for each place in a block of 2x2 results: the tap that meets a number
twice is a sum of two. They share tiles of 6x6 inputs, and 144 products make 10x10 results, where
the definition takes 900.

The map is worked off in bands of rows, of which only one is in memory, in blocks that fit into a
processor's cache. A band is read and written by functions, so what comes before a convolution (a
norm) and after it (a sum) needs no map of its own.

Letters: c channels in, k channels out, h w height and width, n rows and m columns of tiles, p
places of results per input and side (1 or 2), q results per tile, place and side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_SIDE = 6
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
_THREE_TAPS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float32
)  # 24 times, so that the numbers are whole
_TWO_TAPS = torch.tensor(
    [[6, 0], [-4, -4], [-4, 4], [1, 2], [1, -2], [0, 24]], dtype=torch.float32
)  # so are these
_RESULT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float32,
)
_LONG_RESULT = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 0],
        [0, 1, 1, 16, 16, 1],
    ],
    dtype=torch.float32,
)

_INPUT2 = torch.kron(_INPUT, _INPUT)

# What the first and the second place of a pair of results see of three taps: the results of a tile
# begin with a second one of the pair before.
_PAIRED = (
    torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.float32),
    torch.tensor([[1, 0, 0], [0, 1, 1]], dtype=torch.float32),
)


@dataclass(frozen=True)
class Kind:
    """How tiles become results; both directions are alike.

    Attributes:
        places: results per input and side.
        lead: results of the first tile that lie before the map.
        step: inputs from a tile to the next.
        weights: "36 9" for each place.
        results: "(q q) 36".
    """

    places: int
    lead: int
    step: int
    weights: tuple[Tensor, ...]
    results: Tensor


ONCE = Kind(1, 0, 4, (torch.kron(_THREE_TAPS, _THREE_TAPS) / 24**2,), torch.kron(_RESULT, _RESULT))
"""The result has the size of the map."""

TWICE = Kind(
    2,
    1,
    5,
    tuple(
        torch.kron(_TWO_TAPS @ rows, _TWO_TAPS @ columns) / 24**2
        for rows in _PAIRED
        for columns in _PAIRED
    ),
    torch.kron(_LONG_RESULT, _LONG_RESULT),
)
"""The result is that of the map with every number repeated: twice as high and as wide."""

_FEW_CHANNELS = 256
_TILES = (64, 128)
"""Tiles in a block with few and with many channels: fewer stay in a cache of 1 MiB, more use the
weights, which are larger then, more often."""

_COLUMNS = 64
"""Most tiles side by side."""


def transform_weight(weight: Tensor, kind: Kind = ONCE) -> Tensor:
    """Weights "k c 3 3" as they are multiplied, "36 (p p k) c"."""
    k, c = weight.shape[:2]
    taps = weight.reshape(k * c, 9).T
    products = torch.stack(kind.weights, dim=1).view(-1, 9) @ taps
    return products.view(_SIDE**2, -1, c)


def convolve(
    weight: Tensor, size: tuple[int, int], read: Read, write: Write, kind: Kind = ONCE
) -> None:
    """Convolve a map with zeros around it.

    Args:
        weight: "k c 3 3", float32.
        size: height and width of the map.
        read: gives its rows, each once, from the first to the last.
        write: takes rows of the result, in the same order.
        kind: whether the map is enlarged first.
    """
    height, width = size
    outputs, inputs = weight.shape[:2]
    step, lead, shared = kind.step, kind.lead, _SIDE - kind.step
    across = kind.places * step  # results of a tile and side
    columns = math.ceil((kind.places * width + lead) / across)
    m = min(columns, _COLUMNS)
    n = min(math.ceil(height / step), max(1, _TILES[inputs >= _FEW_CHANNELS] // m))
    # Made once: what large tensors cost most here is memory that is new to the process.
    rows = torch.zeros(inputs, step * n + shared, step * columns + shared)
    done = torch.empty(outputs, across * n, across * columns)
    block = _Block(kind, weight, n, m)
    inner = rows[:, :, 1 : width + 1]
    have = 0
    for top in range(0, height + lead, step * n):
        # Neighbouring bands share rows, and at the top the row above the map is zero.
        if top:
            rows[:, :shared] = rows[:, -shared:].clone()
        first, last = have, min(top - 1 + step * n + shared, height)
        at = first - (top - 1)
        if last > first:
            read(first, last, inner[:, at : at + last - first])
        rows[:, at + last - first :].zero_()
        have = last
        tiles = rows.unfold(1, _SIDE, step).unfold(2, _SIDE, step).permute(3, 4, 0, 1, 2)
        results = done.view(outputs, n, step, kind.places, columns, step, kind.places)
        for left in range(0, columns, m):
            start = min(left, columns - m)  # the last block overlaps instead of being cut
            block.run(tiles[..., start : start + m], results[:, :, :, :, start : start + m])
        above = kind.places * top - lead
        begin, end = max(above, 0), min(above + across * n, kind.places * height)
        write(begin, end, done[:, begin - above : end - above, lead : lead + kind.places * width])


class _Block:
    """Room for the tiles that are computed together."""

    def __init__(self, kind: Kind, weight: Tensor, n: int, m: int) -> None:
        outputs, inputs = weight.shape[:2]
        step, places = kind.step, kind.places
        self._kind = kind
        self._products = transform_weight(weight, kind)
        self._tiles = torch.empty(_SIDE, _SIDE, inputs, n, m)
        self._in = torch.empty(_SIDE**2, inputs * n * m)
        self._out = torch.empty(_SIDE**2, places**2 * outputs, n * m)
        self._results = torch.empty(step**2, places**2 * outputs * n * m)
        self._shape = (step, step, places, places, outputs, n, m)

    def run(self, tiles: Tensor, results: Tensor) -> None:
        """From inputs "6 6 c n m" to results "k n q p m q p"."""
        self._tiles.copy_(tiles)
        torch.mm(_INPUT2, self._tiles.view(_SIDE**2, -1), out=self._in)
        outputs, count = self._out.shape[1:]
        torch.bmm(self._products, self._in.view(_SIDE**2, -1, count), out=self._out)
        torch.mm(self._kind.results, self._out.view(_SIDE**2, outputs * count), out=self._results)
        results.copy_(self._results.view(self._shape).permute(4, 5, 0, 2, 6, 1, 3))
