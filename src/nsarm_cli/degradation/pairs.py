"""Real-ESRGAN's second-order degradation: from a good photograph to a plausible bad one.

Pictures here are RGB, float32, in [0, 1] (not [-1, 1]): JPEG, noise and clamping are defined
on it. Letters: b batch, h w pixels.

Source: Real-ESRGAN (arXiv 2107.10833), high-order degradation model.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.degradation.draws import chance, pick, uniform
from nsarm_cli.degradation.jpeg import jpeg_round_trip
from nsarm_cli.degradation.kernels import (
    anisotropic_kernel,
    draw_blur_kernel,
    draw_final_sinc,
    filter2d,
    usm_sharpen,
)
from nsarm_cli.degradation.noise import add_noise
from nsarm_cli.degradation.recipe import Degradation, DegradationRecipe, ResizeRanges

RESIZE_MODES = ("area", "bilinear", "bicubic")
# An HR side is at least this many times the scale: every resize leaves a pixel.
LEAST_LR_SIDE = 8
_REFERENCE_KERNEL = 9  # odd; holds four standard deviations of 1 pixel on either side


def _draw_factor(rng: torch.Generator, ranges: ResizeRanges) -> float:
    direction = pick(rng, (ranges.up, ranges.down, ranges.keep))
    low, high = ranges.factor
    return (uniform(rng, (1.0, high)), uniform(rng, (low, 1.0)), 1.0)[direction]


def _resize_by(x: Tensor, factor: float, rng: torch.Generator) -> Tensor:
    """Resize "3 h w" by a factor, in a mode drawn at random, without antialiasing."""
    mode = RESIZE_MODES[pick(rng, (1, 1, 1))]
    if factor == 1:
        return x  # every mode is the identity
    return F.interpolate(x[None], scale_factor=factor, mode=mode)[0]


def _resize_to(x: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Resize "3 h w" to a size, in a mode drawn at random, without antialiasing."""
    mode = RESIZE_MODES[pick(rng, (1, 1, 1))]
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x[None], size=size, mode=mode)[0]


def _degrade_one(hr: Tensor, recipe: DegradationRecipe, rng: torch.Generator) -> Tensor:
    """One sample, "3 h w", already sharpened."""
    height, width = hr.shape[-2:]
    lr_size = (height // recipe.scale, width // recipe.scale)

    x = filter2d(hr, draw_blur_kernel(rng, recipe.blur))
    x = _resize_by(x, _draw_factor(rng, recipe.resize), rng)
    x = add_noise(x, recipe.noise, rng)
    if recipe.jpeg is not None:
        x = jpeg_round_trip(x, uniform(rng, recipe.jpeg))

    if recipe.second is not None:
        if chance(rng, recipe.second.blur_probability):
            x = filter2d(x, draw_blur_kernel(rng, recipe.second.blur))
        factor = _draw_factor(rng, recipe.second.resize)
        size = (int(height / recipe.scale * factor), int(width / recipe.scale * factor))
        x = _resize_to(x, size, rng)
        x = add_noise(x, recipe.second.noise, rng)

    sinc = draw_final_sinc(rng, recipe.final_sinc_probability)
    quality = uniform(rng, recipe.final_jpeg)
    jpeg_last = chance(rng, recipe.jpeg_last_probability)
    if not jpeg_last:
        x = jpeg_round_trip(x, quality)
    x = _resize_to(x, lr_size, rng)
    if sinc is not None:
        x = filter2d(x, sinc)
    if jpeg_last:
        x = jpeg_round_trip(x, quality)
    return (x * 255).round().clamp(0, 255) / 255


def _reference(hr: Tensor, recipe: DegradationRecipe, rng: torch.Generator) -> Tensor:
    """What is to be restored of one sample, "3 h w"."""
    if recipe.reference_blur is None:
        return hr
    sigma = uniform(rng, recipe.reference_blur)
    return filter2d(hr, anisotropic_kernel(_REFERENCE_KERNEL, (sigma, sigma))).clamp(0, 1)


def degrade(hr: Tensor, recipe: Degradation, generators: Sequence[torch.Generator]) -> Tensor:
    """Make low-resolution pictures out of good ones: the second of `make_pairs`."""
    return make_pairs(hr, recipe, generators)[1]


@torch.no_grad()
def make_pairs(
    hr: Tensor, recipe: Degradation, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Make pairs of what is to be restored and what it is to be restored from.

    A sample's result depends on its picture and its generator, never on its batch.

    Args:
        hr: "b 3 h w", float32, in [0, 1]; h and w are multiples of the recipe's scale, and at
            least 8 times it. Not sharpened: the recipe says whether that is done here.
        recipe: the degradation, or a mixture from which each sample draws its own.
        generators: one per sample, on CPU; each is advanced.

    Returns:
        The reference, "b 3 h w", which is hr but for recipes with `reference_blur`; and lr,
        "b 3 h/scale w/scale", on 8-bit levels. Both float32, in [0, 1], on the device of hr.

    Raises:
        ValueError: wrong shape or size, or not one generator per sample.
    """
    if hr.ndim != 4 or hr.shape[1] != 3 or len(generators) != hr.shape[0]:
        raise ValueError(
            f"degrading needs hr 'b 3 h w' and b generators, not {tuple(hr.shape)} "
            f"and {len(generators)}"
        )
    for side in hr.shape[-2:]:
        if side % recipe.scale or side < LEAST_LR_SIDE * recipe.scale:
            raise ValueError(
                f"an HR side of {side} is not a multiple of the scale {recipe.scale} "
                f"that is at least {LEAST_LR_SIDE * recipe.scale}"
            )
    # Upstream: the modes and factors of resizing are drawn once per batch, and kernels are
    # collected apart from their pictures. We: one sample after the other, everything from its
    # own generator, because a result must not depend on which samples share its batch, and
    # since each sample passes through sizes of its own there is nothing left to stack.
    references, poor = [], []
    for x, rng in zip(hr, generators, strict=True):
        own = recipe.draw(rng)
        reference = _reference(x, own, rng)
        references.append(reference)
        poor.append(_degrade_one(usm_sharpen(reference) if own.usm else reference, own, rng))
    return torch.stack(references), torch.stack(poor)
