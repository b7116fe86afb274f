"""How LPIPS and DISTS are used as training losses, and what they must be kept from."""

import torch.nn.functional as F
from torch import Tensor

_PLASTIC = 1.32471795724474602596
"""The real root of x^3 = x + 1."""

LEAST_BLOCKS = 8
"""Blocks along a side of the areas in which a repeated pattern is looked for."""


def jitter(a: Tensor, b: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Cut up to three rows and columns off both pictures, another number at each step.

    AlexNet looks at every fourth pixel, in phase with a decoder that unfolds 4 x 4 blocks,
    and would not see a pattern that repeats with each block.
    """
    top, left = step % 4, step // 4 % 4
    return a[..., top:, left:], b[..., top:, left:]


def same_square(a: Tensor, b: Tensor, side: int, step: int) -> tuple[Tensor, Tensor]:
    """Cut the same square out of both pictures, at another place at each step.

    Places follow a sequence that fills the picture evenly (the R2 sequence of M. Roberts), and
    from the step alone, so that they are the same in each process of a run.

    Args:
        a: "b 3 h w".
        b: of the same shape.
        side: of the square, cut to the size of the pictures.
        step: number of the update.

    Returns:
        Two "b 3 s s".
    """
    for axis, stride in ((-2, _PLASTIC**-1), (-1, _PLASTIC**-2)):
        part = min(side, a.shape[axis])
        start = int((0.5 + step * stride) % 1 * (a.shape[axis] - part + 1))
        a, b = (x.narrow(axis, start, part) for x in (a, b))
    return a, b


def repeated_pattern(made: Tensor, wanted: Tensor, period: int) -> Tensor:
    """How strong a pattern repeats in the error with every block that the decoder unfolds.

    Losses of features take such a grid for texture.

    Args:
        made: "b 3 h w" with sides of at least `LEAST_BLOCKS` periods, and multiples of a period.
        wanted: of the same shape.
        period: side of a block in pixels; 1 has no pattern.

    Returns:
        The mean absolute pattern, a scalar.
    """
    return pattern_map(made, wanted, period).abs().mean()


def pattern_map(made: Tensor, wanted: Tensor, period: int) -> Tensor:
    """What repeats in the error, area by area: arguments as for `repeated_pattern`.

    The error is averaged over places of the same phase in areas of 8 x 8 blocks, each half over
    the next, which leaves what repeats; its mean over the phases, a mere change of colour, is
    taken off.

    Returns:
        "b 3 p y x" with p phases.
    """
    phases = F.pixel_unshuffle(made - wanted, period)
    local = F.avg_pool2d(phases, LEAST_BLOCKS, LEAST_BLOCKS // 2)
    local = local.reshape(len(local), -1, period * period, *local.shape[-2:])
    return local - local.mean(2, keepdim=True)
