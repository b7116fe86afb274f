"""Bicubic resize as MATLAB's `imresize` computes it, which measures of the field are defined by.

Keys' kernel (a = -0.5), widened when a picture shrinks, with mirrored edges. Each axis is a
matrix product, in float64.
"""

import torch
from torch import Tensor


def resize_matlab(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize without rounding or clamping.

    Args:
        x: "... h w", any float type.
        size: (height, width) to give it.

    Returns:
        "... height width", float64.
    """
    rows, columns = (_matrix(old, new) for old, new in zip(x.shape[-2:], size, strict=True))
    return rows @ x.double() @ columns.T


def _matrix(old: int, new: int) -> Tensor:
    """Weights of `old` pixels in each of `new`: "new old"."""
    step = old / new
    stretch = max(step, 1.0)
    reach = int(2 * stretch) + 2
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * step - 0.5
    taps = centre.floor()[:, None] + torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = _kernel((taps - centre[:, None]) / stretch)
    weights /= weights.sum(1, keepdim=True)
    # Mirrored with the edge pixel twice: -1 is 0, -2 is 1.
    place = taps.long() % (2 * old)
    place = torch.minimum(place, 2 * old - 1 - place)
    return torch.zeros(new, old, dtype=torch.float64).scatter_add_(1, place, weights)


def _kernel(x: Tensor) -> Tensor:
    d = x.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d <= 2, far, torch.zeros_like(d)))
