"""The recipes of degradations: what each step of `pairs` draws from.

Source: Real-ESRGAN (arXiv 2107.10833), high-order degradation model; NSARM (arXiv 2510.00820)
trains on it.
"""

from dataclasses import dataclass

import torch

from nsarm_cli.degradation.draws import pick
from nsarm_cli.degradation.kernels import BlurRanges
from nsarm_cli.degradation.noise import NoiseRanges

Range = tuple[float, float]


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
        reference_blur: standard deviation, in HR pixels, of a Gaussian that the HR itself gets,
            as what is to be restored; None leaves it as sharp as it is.
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
    reference_blur: Range | None = None
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

    Raises:
        ValueError: there are no parts, or they have several scales.
    """

    name: str
    parts: tuple[tuple[float, DegradationRecipe], ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be one degradation."""
        scales = sorted({recipe.scale for _, recipe in self.parts})
        if len(scales) != 1:
            raise ValueError(
                f"a mixture needs recipes of one scale; {self.name} has {scales or 'no recipes'}"
            )

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
# Photographs to train on are mostly reduced until each pixel is sharp; those of a camera are not,
# and a model that is to make them so makes grain: hence the softened reference.
CAMERA = DegradationRecipe(
    name="camera",
    blur=BlurRanges(sigma=(1.5, 4.0)),
    resize=ResizeRanges(up=0.1, down=0.4, keep=0.5, factor=(0.5, 1.2)),
    noise=NoiseRanges(0.5, sigma=(0, 5), poisson_scale=(0.0, 0.5), grey_probability=0.4),
    jpeg=None,
    second=None,
    final_jpeg=(85, 100),
    final_sinc_probability=0.2,
    reference_blur=(0.4, 1.0),
)
CAMERA_AND_LIGHT = DegradationMixture("camera-and-light", ((0.5, CAMERA), (0.5, REALESRGAN_LIGHT)))
RECIPES: dict[str, Degradation] = {
    r.name: r for r in (REALESRGAN, REALESRGAN_LIGHT, REALESRGAN_MILD, CAMERA, CAMERA_AND_LIGHT)
}
