"""How LPIPS is used as a training loss."""

from torch import Tensor


def jitter(a: Tensor, b: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Cut up to three rows and columns off both pictures, another number at each step.

    AlexNet looks at every fourth pixel, in phase with a decoder that unfolds 4 x 4 blocks,
    and would not see a pattern that repeats with each block.
    """
    top, left = step % 4, step // 4 % 4
    return a[..., top:, left:], b[..., top:, left:]
