"""How many passes of a model an enlargement takes, and the sizes between them."""

import math

MAX_SCALE = 16
"""Largest enlargement: two passes of a model that enlarges four times."""

_STRETCH = 1.5
"""What the last resize may add to the enlargement of the passes before one pass more is run."""


def plan_sizes(
    height: int, width: int, size: tuple[int, int] | None, scale: int
) -> list[tuple[int, int]]:
    """Plan the passes of a model.

    Args:
        height: of the input, in pixels.
        width: likewise.
        size: (height, width) of the result, from 1 pixel to `MAX_SCALE` times that of the input on
            each axis; by default `scale` times.
        scale: enlargement of one pass.

    Returns:
        (height, width) before the first pass, after each pass and the resize that follows it: one
        more than there are passes.

    Raises:
        ValueError: a size out of range.
    """
    size = size or (height * scale, width * scale)
    ratios = (size[0] / height, size[1] / width)
    if not (min(size) >= 1 and max(ratios) <= MAX_SCALE + 1e-9):
        raise ValueError(f"cannot make {size} of {(height, width)}: at most x{MAX_SCALE}")
    passes = 1
    while max(ratios) > _STRETCH * scale**passes:
        passes += 1
    steps = [size]
    for _ in range(passes - 1):
        # What the next pass enlarges to exactly the wanted size, or a row more.
        steps.append((math.ceil(steps[-1][0] / scale), math.ceil(steps[-1][1] / scale)))
    return [(height, width), *reversed(steps)]
