"""Blur kernels of Real-ESRGAN, the filter that applies them, and USM sharpening.

Kernels are "k k", float32, k odd (7 to 21), on the CPU; they sum to 1 and do not change
under a rotation by 180 degrees. Letters: b batch, c channels, h w pixels, k kernel side.

Source: Real-ESRGAN (arXiv 2107.10833), its sections on blur and on ringing artifacts.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nsarm_cli.degradation.draws import chance, pick, uniform

Shape = Literal["gaussian", "generalised", "plateau"]

# Each shape, whether it is isotropic, and its share among the kernels that are not sinc.
MIXTURE: tuple[tuple[Shape, bool, float], ...] = (
    ("gaussian", True, 0.45),
    ("gaussian", False, 0.25),
    ("generalised", True, 0.12),
    ("generalised", False, 0.03),
    ("plateau", True, 0.12),
    ("plateau", False, 0.03),
)
SIZES = tuple(range(7, 22, 2))
# Under this side a sinc kernel may not cut below pi/3: its lobes would not fit.
SMALL_SINC = 13


@dataclass(frozen=True)
class BlurRanges:
    """What one blur draws from.

    Attributes:
        sigma: standard deviation in pixels, of each axis.
        sinc_probability: of a circular sinc instead of a kernel of `MIXTURE`.
        generalised_beta: exponent of the generalised Gaussians, around 1.
        plateau_beta: exponent of the plateau kernels.
    """

    sigma: tuple[float, float]
    sinc_probability: float = 0.1
    generalised_beta: tuple[float, float] = (0.5, 4.0)
    plateau_beta: tuple[float, float] = (1.0, 2.0)


def _normalised(kernel: Tensor) -> Tensor:
    return torch.div(kernel, kernel.sum()).float()


def anisotropic_kernel(
    size: int,
    sigma: tuple[float, float],
    angle: float = 0.0,
    shape: Shape = "gaussian",
    beta: float = 1.0,
) -> Tensor:
    """A Gaussian, generalised Gaussian or plateau kernel.

    With d the squared Mahalanobis distance from the centre: exp(-d/2), exp(-d^beta / 2) or
    1 / (1 + d^beta), divided by its sum.

    Args:
        size: odd side in pixels.
        sigma: standard deviation along the two principal axes, in pixels.
        angle: of the first axis against the rows, in radians.
        shape: which of the three.
        beta: exponent; 1 for "gaussian".
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = axis[:, None], axis[None, :]
    along = (math.cos(angle) * x + math.sin(angle) * y) / sigma[0]
    across = (math.cos(angle) * y - math.sin(angle) * x) / sigma[1]
    distance = along**2 + across**2
    if shape == "plateau":
        kernel = 1 / (1 + distance**beta)
    else:
        kernel = torch.exp(-0.5 * (distance if shape == "gaussian" else distance**beta))
    return _normalised(kernel)


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """The circular low-pass filter, cut to a square: it rings, as over-sharpened pictures do.

    Args:
        size: odd side in pixels.
        cutoff: radians per pixel, above 0, pi at most.

    Source: Real-ESRGAN (arXiv 2107.10833), sinc filter: w J1(w r) / (2 pi r).
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    radius = torch.hypot(axis[:, None], axis[None, :])
    radius[size // 2, size // 2] = 1.0
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)  # the limit at the centre
    return _normalised(kernel)


def _draw_size(rng: torch.Generator) -> int:
    return SIZES[pick(rng, [1.0] * len(SIZES))]


def _draw_beta(rng: torch.Generator, bounds: tuple[float, float]) -> float:
    # Half the kernels on either side of 1, where both families meet the ordinary shape.
    low, high = bounds
    return uniform(rng, (low, 1.0)) if chance(rng, 0.5) else uniform(rng, (1.0, high))


def draw_blur_kernel(rng: torch.Generator, ranges: BlurRanges) -> Tensor:
    """Draw the kernel of a blur: its size, family and parameters. "k k", k odd, 7 to 21.

    Upstream: kernels are padded to 21x21 to be stacked. We: each keeps its own size, which
    gives the same picture (the border of zeros takes nothing from the padding) for less work.
    """
    size = _draw_size(rng)
    if chance(rng, ranges.sinc_probability):
        low = math.pi / 3 if size < SMALL_SINC else math.pi / 5
        return sinc_kernel(size, uniform(rng, (low, math.pi)))
    shape, isotropic, _ = MIXTURE[pick(rng, [share for _, _, share in MIXTURE])]
    first = uniform(rng, ranges.sigma)
    second, angle, beta = first, 0.0, 1.0
    if not isotropic:
        second = uniform(rng, ranges.sigma)
        angle = uniform(rng, (-math.pi, math.pi))
    if shape == "generalised":
        beta = _draw_beta(rng, ranges.generalised_beta)
    elif shape == "plateau":
        beta = _draw_beta(rng, ranges.plateau_beta)
    return anisotropic_kernel(size, (first, second), angle, shape, beta)


def draw_final_sinc(rng: torch.Generator, probability: float) -> Tensor | None:
    """Draw the last sinc filter, or None (leave the picture alone) otherwise."""
    if not chance(rng, probability):
        return None
    return sinc_kernel(_draw_size(rng), uniform(rng, (math.pi / 3, math.pi)))


def reflect_pad(x: Tensor, pad: int) -> Tensor:
    """Mirror "... h w" around its border pixels by `pad` on every side.

    As `F.pad(mode="reflect")`, but the mirror repeats when the picture is smaller than the
    padding: a strong down-sizing of a small picture comes to that.
    """
    for dim in (-2, -1):
        length = x.shape[dim]
        period = max(2 * (length - 1), 1)
        index = torch.arange(-pad, length + pad, device=x.device).remainder(period)
        x = x.index_select(dim, torch.minimum(index, period - index).clamp(max=length - 1))
    return x


def _fast_length(length: int) -> int:
    """The least product of 2, 3 and 5 that is not under `length`: a quick FFT."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def filter2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with one kernel, reflecting at the borders.

    By FFT: its time does not grow with the kernel, and it needs no symmetric kernel.

    Args:
        x: "... h w", float32, any range.
        kernel: "k k", k odd; moved to the device of x.

    Returns:
        The shape of x; the error of the FFT is about 1e-6 of the range of x.
    """
    height, width = x.shape[-2:]
    padded = reflect_pad(x, kernel.shape[-1] // 2)
    size = (_fast_length(padded.shape[-2]), _fast_length(padded.shape[-1]))
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum = spectrum * torch.fft.rfft2(kernel.to(x), s=size).conj()
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., :height, :width]


def usm_sharpen(x: Tensor, weight: float = 0.5, threshold: float = 10.0) -> Tensor:
    """Unsharp masking where the picture differs from its blur.

    Args:
        x: "b 3 h w" or "3 h w", float32, in [0, 1].
        weight: of the detail that is added.
        threshold: least difference from the blur that is sharpened, in 8-bit levels.

    Returns:
        The sharpened picture, shape and range of x.

    Source: Real-ESRGAN (arXiv 2107.10833), training pairs: sharpened ground truth.
    """
    # Radius 50 made odd, with the sigma that goes with it: 0.3 ((51 - 1) / 2 - 1) + 0.8 = 8.
    kernel = anisotropic_kernel(51, (8.0, 8.0))
    detail = x - filter2d(x, kernel)
    mask = filter2d((detail.abs() * 255 > threshold).to(x.dtype), kernel)
    sharp = (x + weight * detail).clamp(0, 1)
    return x + mask * (sharp - x)
