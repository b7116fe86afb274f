"""HR to LR: the seeded degradation that training pairs and synthetic tests are made with."""

from nsarm_cli.degradation.kernels import usm_sharpen
from nsarm_cli.degradation.recipe import (
    REALESRGAN,
    REALESRGAN_LIGHT,
    RECIPES,
    Degradation,
    DegradationMixture,
    DegradationRecipe,
    degrade,
)

__all__ = [
    "REALESRGAN",
    "REALESRGAN_LIGHT",
    "RECIPES",
    "Degradation",
    "DegradationMixture",
    "DegradationRecipe",
    "degrade",
    "usm_sharpen",
]
