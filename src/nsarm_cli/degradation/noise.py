"""Gaussian and Poisson noise, in colour or alike in all channels (grey).

Pictures are "3 h w", float32, in [0, 1]; results are clamped to [0, 1] and not rounded.
Noise is drawn on the CPU, so that a seed gives the same noise on every device.

Source: Real-ESRGAN (arXiv 2107.10833), classical degradation model (noise).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nsarm_cli.degradation.draws import chance, uniform

LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class NoiseRanges:
    """What one addition of noise draws from.

    Attributes:
        gaussian_probability: of Gaussian noise; Poisson noise otherwise.
        sigma: standard deviation of Gaussian noise, in 8-bit levels.
        poisson_scale: factor on Poisson noise; 1 is that of the picture's own levels.
        grey_probability: of the same noise in all channels.
    """

    gaussian_probability: float
    sigma: tuple[float, float]
    poisson_scale: tuple[float, float]
    grey_probability: float


def gaussian_noise(shape: torch.Size, sigma: float, grey: bool, rng: torch.Generator) -> Tensor:
    """Gaussian noise for a picture of `shape` ("3 h w"): "3 h w", or "1 h w" if grey.

    Args:
        shape: of the picture.
        sigma: standard deviation in 8-bit levels.
        grey: one noise for all channels.
        rng: on CPU.
    """
    channels = 1 if grey else shape[0]
    return torch.randn((channels, *shape[1:]), generator=rng) * (sigma / 255)


def poisson_noise(x: Tensor, scale: float, grey: bool, rng: torch.Generator) -> Tensor:
    """Shot noise of the picture: "3 h w", or "1 h w" (of its luma) if grey; on the CPU.

    The picture is rounded to 8 bits; the photons at full light are the number of its distinct
    levels, rounded up to a power of two, so that a flat picture is noisier than a rich one.

    Args:
        x: "3 h w", in [0, 1].
        scale: factor on the noise.
        grey: one noise for all channels.
        rng: on CPU.
    """
    if grey:
        x = (x * torch.tensor(LUMA, device=x.device)[:, None, None]).sum(0, keepdim=True)
    levels = (x * 255).round().clamp(0, 255).cpu()
    distinct = int((torch.bincount(levels.flatten().int(), minlength=256) > 0).sum())
    photons = 2.0 ** math.ceil(math.log2(distinct))
    exact = levels / 255
    return (torch.poisson(exact * photons, generator=rng) / photons - exact) * scale


def add_noise(x: Tensor, ranges: NoiseRanges, rng: torch.Generator) -> Tensor:
    """Draw the kind and strength of noise, and add it. "3 h w" in [0, 1] to the same."""
    gaussian = chance(rng, ranges.gaussian_probability)
    strength = uniform(rng, ranges.sigma if gaussian else ranges.poisson_scale)
    grey = chance(rng, ranges.grey_probability)
    if gaussian:
        noise = gaussian_noise(x.shape, strength, grey, rng)
    else:
        noise = poisson_noise(x, strength, grey, rng)
    return (x + noise.to(x.device)).clamp(0, 1)
