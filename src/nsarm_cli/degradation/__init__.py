"""HR to LR: the seeded degradation that training pairs and synthetic tests are made with."""

from nsarm_cli.degradation.kernels import usm_sharpen
from nsarm_cli.degradation.pairs import degrade, make_pairs
from nsarm_cli.degradation.recipe import (
    REALESRGAN,
    REALESRGAN_LIGHT,
    RECIPES,
    Degradation,
    DegradationMixture,
    DegradationRecipe,
)

__all__ = [
    "REALESRGAN",
    "REALESRGAN_LIGHT",
    "RECIPES",
    "Degradation",
    "DegradationMixture",
    "DegradationRecipe",
    "degrade",
    "make_pairs",
    "usm_sharpen",
]
