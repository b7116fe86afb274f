"""Colour profiles made here, since none may be installed."""

from functools import cache
from types import SimpleNamespace

import imagecodecs
import pytest
from PIL import ImageCms


@cache  # a profile holds the time when it was made
def wide() -> bytes:
    """Describe colours with the primaries of Display P3."""
    primaries = [0.680, 0.320, 1, 0.265, 0.690, 1, 0.150, 0.060, 1]
    return imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3127, 0.3290, 1], primaries=primaries, gamma=2.2
    )


@cache
def grey() -> bytes:
    return imagecodecs.cms_profile("gray", gamma=1.8)


@pytest.fixture(scope="session")
def icc() -> SimpleNamespace:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return SimpleNamespace(srgb=srgb, wide=wide(), grey=grey())
