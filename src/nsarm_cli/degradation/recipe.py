"""Real-ESRGAN's second-order degradation: from a good photograph to a plausible bad one.

Pictures here are RGB, float32, in [0, 1] (not [-1, 1]): JPEG, noise and clamping are defined
on it. Letters: b batch, h w pixels.

Source: Real-ESRGAN (arXiv 2107.10833), high-order degradation model; NSARM (arXiv 2510.00820)
trains on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.degradation.draws import chance, pick, uniform
from nsarm_cli.degradation.jpeg import jpeg_round_trip
from nsarm_cli.degradation.kernels import (
    BlurRanges,
    draw_blur_kernel,
    draw_final_sinc,
    filter2d,
    usm_sharpen,
)
from nsarm_cli.degradation.noise import NoiseRanges, add_noise

Range = tuple[float, float]
RESIZE_MODES = ("area", "bilinear", "bicubic")
# An HR side is at least this many times the scale: every resize leaves a pixel.
LEAST_LR_SIDE = 8


@dataclass(frozen=True)
class ResizeRanges:
    """What one resize draws from.

    Attributes:
        up: probability of a factor between 1 and the end of `factor`.
        down: probability of a factor between the start of `factor` and 1.
        keep: probability of no resize.
        factor: least and greatest factor, around 1.
    """

    up: float
    down: float
    keep: float
    factor: Range


@dataclass(frozen=True)
class SecondPass:
    """The second blur, resize and noise.

    Attributes:
        blur_probability: of the blur.
        blur: what the blur draws from.
        resize: factors are against the LR size, not against the picture so far.
        noise: what the noise draws from.
    """

    blur_probability: float
    blur: BlurRanges
    resize: ResizeRanges
    noise: NoiseRanges


@dataclass(frozen=True)
class DegradationRecipe:
    """All probabilities and ranges of a degradation.

    Attributes:
        name: by which `RECIPES` knows it.
        blur: first blur (always applied).
        resize: first resize.
        noise: first noise.
        jpeg: quality of the first JPEG; None leaves it out.
        second: second pass; None leaves it out.
        final_jpeg: quality of the last JPEG.
        final_sinc_probability: of the last sinc filter.
        jpeg_last_probability: of JPEG after the last resize and sinc, rather than before.
        usm: sharpen the HR before degrading it.
        scale: HR size over LR size.
    """

    name: str
    blur: BlurRanges
    resize: ResizeRanges
    noise: NoiseRanges
    jpeg: Range | None
    second: SecondPass | None
    final_jpeg: Range
    final_sinc_probability: float = 0.8
    jpeg_last_probability: float = 0.5
    usm: bool = True
    scale: int = 4

    def draw(self, rng: torch.Generator) -> "DegradationRecipe":
        """The recipe of one sample: this one, without a draw."""
        return self


@dataclass(frozen=True)
class DegradationMixture:
    """Several recipes of one scale; each sample draws one of them.

    Attributes:
        name: by which `RECIPES` knows it.
        parts: share and recipe of each; shares are taken in proportion to their sum.
    """

    name: str
    parts: tuple[tuple[float, DegradationRecipe], ...]

    @property
    def scale(self) -> int:
        """HR size over LR size, of every part."""
        return self.parts[0][1].scale

    def draw(self, rng: torch.Generator) -> DegradationRecipe:
        """The recipe of one sample; `rng` is advanced by one draw."""
        return self.parts[pick(rng, [share for share, _ in self.parts])][1]


Degradation = DegradationRecipe | DegradationMixture


REALESRGAN = DegradationRecipe(
    name="realesrgan",
    blur=BlurRanges(sigma=(0.2, 3.0)),
    resize=ResizeRanges(up=0.2, down=0.7, keep=0.1, factor=(0.15, 1.5)),
    noise=NoiseRanges(0.5, sigma=(1, 30), poisson_scale=(0.05, 3.0), grey_probability=0.4),
    jpeg=(30, 95),
    second=SecondPass(
        blur_probability=0.8,
        blur=BlurRanges(sigma=(0.2, 1.5)),
        resize=ResizeRanges(up=0.3, down=0.4, keep=0.3, factor=(0.3, 1.2)),
        noise=NoiseRanges(0.5, sigma=(1, 25), poisson_scale=(0.05, 2.5), grey_probability=0.4),
    ),
    final_jpeg=(30, 95),
)
REALESRGAN_LIGHT = DegradationRecipe(
    name="realesrgan-light",
    blur=BlurRanges(sigma=(0.2, 3.0)),
    resize=ResizeRanges(up=0.2, down=0.7, keep=0.1, factor=(0.5, 1.5)),
    noise=NoiseRanges(0.3, sigma=(1, 20), poisson_scale=(0.05, 2.0), grey_probability=0.2),
    jpeg=None,
    second=None,
    final_jpeg=(60, 95),
)
# As VARSR (arXiv 2501.18993) trains: both passes, with less of everything.
REALESRGAN_MILD = DegradationRecipe(
    name="realesrgan-mild",
    blur=BlurRanges(sigma=(0.2, 3.0)),
    resize=ResizeRanges(up=0.2, down=0.7, keep=0.1, factor=(0.3, 1.5)),
    noise=NoiseRanges(0.5, sigma=(1, 15), poisson_scale=(0.05, 2.0), grey_probability=0.4),
    jpeg=(60, 95),
    second=SecondPass(
        blur_probability=0.5,
        blur=BlurRanges(sigma=(0.2, 1.5)),
        resize=ResizeRanges(up=0.3, down=0.4, keep=0.3, factor=(0.6, 1.2)),
        noise=NoiseRanges(0.5, sigma=(1, 12), poisson_scale=(0.05, 1.0), grey_probability=0.4),
    ),
    final_jpeg=(60, 100),
    usm=False,
)
# Our choice: a camera with a shorter lens. Its optics blur more than its sharpening takes back; it
# is hardly noisy and hardly compressed. The recipes above pair every strong blur with noise or
# JPEG, and a model that learned from them alone leaves such pictures blurred.
CAMERA = DegradationRecipe(
    name="camera",
    blur=BlurRanges(sigma=(1.5, 4.0)),
    resize=ResizeRanges(up=0.1, down=0.4, keep=0.5, factor=(0.5, 1.2)),
    noise=NoiseRanges(0.5, sigma=(0, 5), poisson_scale=(0.0, 0.5), grey_probability=0.4),
    jpeg=None,
    second=None,
    final_jpeg=(85, 100),
    final_sinc_probability=0.2,
)
CAMERA_AND_LIGHT = DegradationMixture("camera-and-light", ((0.5, CAMERA), (0.5, REALESRGAN_LIGHT)))
RECIPES: dict[str, Degradation] = {
    r.name: r for r in (REALESRGAN, REALESRGAN_LIGHT, REALESRGAN_MILD, CAMERA, CAMERA_AND_LIGHT)
}


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


@torch.no_grad()
def degrade(hr: Tensor, recipe: Degradation, generators: Sequence[torch.Generator]) -> Tensor:
    """Make low-resolution pictures out of good ones.

    A sample's result depends on its picture and its generator, never on its batch.

    Args:
        hr: "b 3 h w", float32, in [0, 1]; h and w are multiples of the recipe's scale, and at
            least 8 times it. Not sharpened: the recipe says whether that is done here.
        recipe: the degradation, or a mixture from which each sample draws its own.
        generators: one per sample, on CPU; each is advanced.

    Returns:
        lr, "b 3 h/scale w/scale", float32, in [0, 1], on 8-bit levels; on the device of hr.

    Raises:
        ValueError: wrong shape or size, or not one generator per sample.
    """
    if hr.ndim != 4 or hr.shape[1] != 3 or len(generators) != hr.shape[0]:
        raise ValueError(
            f"degrade needs hr 'b 3 h w' and b generators, not {tuple(hr.shape)} "
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
    samples = []
    for x, rng in zip(hr, generators, strict=True):
        own = recipe.draw(rng)
        samples.append(_degrade_one(usm_sharpen(x) if own.usm else x, own, rng))
    return torch.stack(samples)
