"""Schedules and crop sizes for several aspect ratios of one model.

A ratio is height divided by width, as in `models.nsarm.schedules`.
"""

import math

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.schedule import Grid, ScaleSchedule
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.schedules import PATCH, RATIOS, SCALES_OF_SIZE, schedule_for
from nsarm_cli.weights.folder import AnyConfig


def template(config: NsarmConfig, ratio: float) -> ScaleSchedule:
    """The scales of a ratio for a model whose own schedule is square.

    Models with the grids of NSARM-8B take the published ones. Any other model's grids keep
    the number of scales and, as nearly as whole tokens allow, the area of each scale.

    Raises:
        ConfigError: the ratio has no published schedule.
    """
    if ratio not in RATIOS:
        known = ", ".join(str(known) for known in RATIOS)
        raise ConfigError(f"ratios has {ratio}; choose from {known}")
    if ratio == 1:
        return config.schedule
    for size in SCALES_OF_SIZE:
        published = schedule_for(1.0, size)
        if config.patch == PATCH and config.schedule.tokens == published.tokens:
            return schedule_for(ratio, size)
    stretch = math.sqrt(ratio)
    tokens = tuple(
        (max(1, round(side * stretch)), max(1, round(side / stretch))) for side in config.sides
    )
    return ScaleSchedule(tokens, config.patch, tokens[-1])


def crop_size(config: AnyConfig, ratio: float, crop: int) -> Grid:
    """Height and width in pixels of the crops of a ratio.

    Args:
        config: of the model.
        ratio: of a template.
        crop: side of the square crops; the model's window gives the template's whole grid, a
            smaller crop the same shape in proportion, in whole latents.
    """
    if ratio == 1:
        return crop, crop
    if not isinstance(config, NsarmConfig):
        raise ConfigError(f"ratios has {ratio}, but {config.name} makes square windows alone")
    stride = config.autoencoder.stride
    full = config.sides[-1] * config.patch
    height, width = template(config, ratio).latents[-1]
    share = crop / (full * stride)
    return max(1, round(height * share)) * stride, max(1, round(width * share)) * stride


def grids_of_crop(config: NsarmConfig, ratio: float, size: Grid) -> tuple[Grid, ...]:
    """Latent grids of a template, scaled down to a crop of `size` (height, width) latents."""
    latents = template(config, ratio).latents
    (rows, columns), (height, width) = latents[-1], size
    return tuple((max(1, h * height // rows), max(1, w * width // columns)) for h, w in latents)
