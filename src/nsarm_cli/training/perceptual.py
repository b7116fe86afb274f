"""How LPIPS and DISTS are used as training losses."""

from torch import Tensor

_PLASTIC = 1.32471795724474602596
"""The real root of x^3 = x + 1."""


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
