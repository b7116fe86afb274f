"""Bring the colours of an enlarged picture back to those of its input.

A generative model may drift in tone. Two corrections, alone or one after the other as NSARM
(arXiv 2510.00820) applies them: AdaIN gives each channel the mean and spread of the input, the
wavelet correction takes everything coarse from the input.

Letters: b batch, h w height and width in pixels. The corrections work on values in [0, 1]
and do not clamp; `match_color` works on the pictures of the pipeline, in [-1, 1].
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.imaging.tensors import resize_bicubic


def adain(sr: Tensor, lr_up: Tensor) -> Tensor:
    """Give each channel of `sr` the mean and standard deviation of `lr_up`.

    Args:
        sr: "b 3 h w", float32 in [0, 1].
        lr_up: the input enlarged to the same size, likewise.

    Returns:
        "b 3 h w", possibly beyond [0, 1].
    """
    sr_std, sr_mean = _spread(sr)
    lr_std, lr_mean = _spread(lr_up)
    return (sr - sr_mean).mul_(lr_std / sr_std).add_(lr_mean)


def wavelet(sr: Tensor, lr_up: Tensor, levels: int = 5) -> Tensor:
    """Keep the fine detail of `sr` and take the rest from `lr_up`.

    Args:
        sr: "b 3 h w", float32 in [0, 1].
        lr_up: the input enlarged to the same size, likewise.
        levels: fewer let `lr_up` decide finer detail too. Of a wave of 72 pixels, or of 18 at
            3 levels, half the amplitude comes from either; of a longer one, more from `lr_up`.

    Returns:
        "b 3 h w", possibly beyond [0, 1].
    """
    # high(sr) + low(lr_up) = sr + low(lr_up - sr), as the filter is linear: half the work.
    _, low = wavelet_split(lr_up - sr, levels)
    return low.add_(sr)


def wavelet_split(x: Tensor, levels: int = 5) -> tuple[Tensor, Tensor]:
    """Split a picture into fine detail and the rest ("a trous" wavelet).

    Level i smooths with [1 2 1]/4 on both axes, the taps 2^i pixels apart and the border
    pixels repeated.

    Args:
        x: "b 3 h w", float.
        levels: at least 0.

    Returns:
        (high, low), both "b 3 h w", whose sum is `x`.
    """
    low = x
    for level in range(levels):
        low = _smooth(_smooth(low, 2**level, -1), 2**level, -2)
    return x - low, low


METHODS: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], ...]] = {
    "none": (),
    "adain": (adain,),
    "wavelet": (wavelet,),
    "both": (adain, wavelet),
    "detail": (partial(wavelet, levels=3),),
}
"""Name of a colour correction -> its steps in order.

"both" is the paper's; "detail" holds the picture closest to its input.
"""


def match_color(sr: Tensor, lr: Tensor, method: str) -> Tensor:
    """Correct the colours of an enlarged picture.

    Args:
        sr: "b 3 (s h) (s w)", float in [-1, 1], for any enlargement s.
        lr: "b 3 h w", float in [-1, 1]: the input.
        method: a name of `METHODS`.

    Returns:
        "b 3 (s h) (s w)" in [-1, 1], of the type and on the device of `sr`.

    Raises:
        ValueError: an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not METHODS[method]:
        return sr
    height, width = sr.shape[-2:]
    lr_up = resize_bicubic(lr.float(), (height, width)).to(sr.device).add_(1).div_(2)
    unit = sr.float().add(1).div_(2)
    for correct in METHODS[method]:
        unit = correct(unit, lr_up).clamp_(0, 1)
    return unit.mul_(2).sub_(1).to(sr)


def _spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each channel, "b 3 1 1"; a flat channel has sqrt(1e-5)."""
    variance, mean = torch.var_mean(x, dim=(-2, -1), keepdim=True)
    return variance.add(1e-5).sqrt(), mean


def _smooth(x: Tensor, distance: int, dim: int) -> Tensor:
    """Convolve one axis with [1 2 1]/4, the taps `distance` apart, the ends repeated."""
    length = x.shape[dim]
    sides = (distance, distance, 0, 0) if dim == -1 else (0, 0, distance, distance)
    padded = F.pad(x, sides, mode="replicate")
    before, after = (padded.narrow(dim, start, length) for start in (0, 2 * distance))
    return (before + after).mul_(0.25).add_(x, alpha=0.5)
