"""Scale schedules of NSARM-8B for every aspect ratio and size (Infinity, arXiv 2412.04431).

A ratio is height divided by width. Each ratio has one list of grids; a smaller size is
the beginning of that list, with rotary positions still on the full grid.
"""

from nsarm_cli.models.core.schedule import Grid, ScaleSchedule

PATCH = 2
"""Latents per token and side."""

SCALES_OF_SIZE = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}
"""Number of scales by size; the size is named after its pixels when the ratio is 1."""

# Height x width in tokens. The wide ratios are these transposed.
_TALL = {
    1.0: "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64",
    1.25: "1x1 2x2 3x3 5x4 10x8 15x12 20x16 25x20 30x24 35x28 45x36 55x44 70x56",
    1.333: "1x1 2x2 4x3 8x6 12x9 16x12 20x15 24x18 28x21 36x27 48x36 60x45 72x54",
    1.5: "1x1 2x2 3x2 6x4 9x6 15x10 21x14 27x18 33x22 39x26 48x32 63x42 78x52",
    1.75: "1x1 2x2 3x3 7x4 11x6 14x8 21x12 28x16 35x20 42x24 56x32 70x40 84x48",
    2.0: "1x1 2x2 4x2 6x3 10x5 16x8 22x11 30x15 38x19 46x23 60x30 74x37 90x45",
    2.5: "1x1 2x2 5x2 10x4 15x6 20x8 25x10 30x12 40x16 50x20 65x26 80x32 100x40",
    3.0: "1x1 2x2 6x2 9x3 15x5 21x7 27x9 36x12 45x15 54x18 72x24 90x30 111x37",
}


def _grids() -> dict[float, tuple[Grid, ...]]:
    """Grids by ratio: each tall ratio followed by its inverse, which is cut to three digits."""
    table: dict[float, tuple[Grid, ...]] = {}
    for ratio, text in _TALL.items():
        pairs = [grid.split("x") for grid in text.split()]
        tall = tuple((int(height), int(width)) for height, width in pairs)
        table[ratio] = tall
        table[int(1000 / ratio) / 1000] = tuple((width, height) for height, width in tall)
    return table


_GRIDS = _grids()

RATIOS = tuple(_GRIDS)
"""The ratios that have a schedule."""


def schedule_for(ratio: float, size: str = "1M") -> ScaleSchedule:
    """The schedule of a ratio and size.

    Args:
        ratio: one of `RATIOS`; `nearest_ratio` finds it.
        size: one of `SCALES_OF_SIZE`.

    Raises:
        ValueError: there is no such ratio or size.
    """
    if ratio not in _GRIDS:
        raise ValueError(f"no schedule for ratio {ratio}; there are {', '.join(map(str, RATIOS))}")
    if size not in SCALES_OF_SIZE:
        raise ValueError(f"no size {size}; there are {', '.join(SCALES_OF_SIZE)}")
    grids = _GRIDS[ratio]
    return ScaleSchedule(grids, PATCH, grids[-1]).truncated(SCALES_OF_SIZE[size])


def nearest_ratio(height_by_width: float) -> float:
    """The ratio with a schedule that is closest in absolute difference; the first on a tie."""
    return min(RATIOS, key=lambda ratio: abs(ratio - height_by_width))
