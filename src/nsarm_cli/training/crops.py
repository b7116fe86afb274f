"""Cut a training crop out of a photograph.

Letters: h w pixels of the photograph.
"""

import math

import numpy as np
from PIL import Image

from nsarm_cli.models.core.schedule import Grid
from nsarm_cli.training.photos import Pixels


def cut(
    pixels: Pixels,
    size: Grid,
    rng: np.random.Generator,
    *,
    shrink: float = 1.0,
    framing: str = "crop",
    margin: float = 1.0,
    turns: str = "all",
) -> Pixels:
    """Cut a crop of a size; a photograph that is too small is enlarged.

    Args:
        pixels: "h w 3".
        size: (height, width) of the crop.
        rng: of place, factor, flip and turn.
        shrink: with framing "crop", the photograph is reduced first by a random factor in
            [1, shrink], which varies the sharpness and the size of things.
        framing: "crop" takes a random part; "whole" reduces or enlarges the photograph until
            it just covers the crop and takes the middle, as the base project does.
        margin: with framing "whole", the photograph's shorter side is so many times the crop's.
        turns: "all" flips and turns by quarters (by halves where the crop is not square),
            "mirror" only swaps left and right, "none" does neither.

    Returns:
        "height width 3".
    """
    most = min(side / wanted for side, wanted in zip(pixels.shape, size, strict=False))
    if framing == "whole":
        factor = most / margin
    elif most >= 1:
        factor = math.exp(rng.uniform(0, math.log(max(1.0, min(shrink, most)))))
    else:
        factor = 1.0
    part = _part(pixels, size, factor)
    if framing == "whole":
        top, left = ((side - own) // 2 for side, own in zip(pixels.shape, part, strict=False))
    else:
        top, left = (
            int(rng.integers(side - own + 1)) for side, own in zip(pixels.shape, part, strict=False)
        )
    found = pixels[top : top + part[0], left : left + part[1]]
    if part != size:
        resized = Image.fromarray(found).resize((size[1], size[0]), Image.Resampling.LANCZOS)
        found = np.asarray(resized)
    return np.ascontiguousarray(_turned(found, rng, turns))


def _part(pixels: Pixels, size: Grid, factor: float) -> Grid:
    """(height, width) of the region that becomes the crop."""
    height, width = pixels.shape[:2]
    if factor * size[0] > height or factor * size[1] > width:
        factor = min(height / size[0], width / size[1])
    return min(height, round(size[0] * factor)), min(width, round(size[1] * factor))


def _turned(pixels: Pixels, rng: np.random.Generator, turns: str) -> Pixels:
    if turns == "all":
        quarters = int(rng.integers(4))
        if pixels.shape[0] != pixels.shape[1]:
            quarters -= quarters % 2
        pixels = np.rot90(pixels, quarters)
    if turns != "none" and rng.integers(2):
        pixels = pixels[:, ::-1]
    return pixels
