"""Colour profiles: a picture's own colours to sRGB, in which models see, and back.

LittleCMS does the work in 16 bits, so that 16-bit pictures never pass through 8. Pillow binds it
for 8 bits alone; imagecodecs binds it for both.

Letters: h w height and width in pixels, c channels.
"""

import io
from functools import cached_property
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import ImageCms

Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""8 or 16 bits per channel, all of the range in use."""

_CHANNELS = {"GRAY": 1, "RGB ": 3, "CMYK": 4}
_SPACES = {"GRAY": "gray", "RGB ": "rgb", "CMYK": "cmyk"}

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

_SAME = 400
"""Difference, of 65535, below which colours count as sRGB: no 8-bit level changes by more than 1.5.

Makers write sRGB a little differently; converting there and back would only add rounding.
"""


class Profile:
    """The ICC profile of a picture.

    Args:
        data: the profile.

    Raises:
        ValueError: it is damaged, or describes neither grey, RGB nor CMYK.
    """

    def __init__(self, data: bytes) -> None:
        try:
            space = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile.xcolor_space
        except (OSError, ImageCms.PyCMSError) as error:
            raise ValueError("the profile cannot be read") from error
        if space not in _SPACES:
            raise ValueError(f"the profile is for {space.strip() or 'unknown'} colours")
        self.data = data
        self.channels = _CHANNELS[space]
        """1 grey, 3 RGB, 4 CMYK."""
        self._space = _SPACES[space]
        # Ink has no white to share with a screen; its makers' own mapping is meant for this.
        self._intent = 0 if space == "CMYK" else 1
        try:
            self.to_srgb(np.zeros((1, 1, self.channels), np.uint8))
            if space != "CMYK":
                self.from_srgb(np.zeros((1, 1, 3), np.uint16), 8)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError("the profile cannot be used") from error

    def to_srgb(self, pixels: Pixels) -> npt.NDArray[np.uint16]:
        """Convert to sRGB.

        Args:
            pixels: "h w c" of this profile, of 8 or 16 bits.

        Returns:
            "h w 3"; colours that sRGB lacks become its nearest.
        """
        if self.channels == 1:
            pixels = pixels[..., 0]
        converted: npt.NDArray[np.uint16] = imagecodecs.cms_transform(
            np.ascontiguousarray(pixels),
            self.data,
            _SRGB,
            colorspace=self._space,
            outcolorspace="rgb",
            outdtype=np.uint16,
            intent=self._intent,
        )
        return converted

    def from_srgb(self, pixels: npt.NDArray[np.uint16], bits: int) -> Pixels:
        """Convert back.

        Args:
            pixels: "h w 3" in sRGB.
            bits: 8 or 16, of the result.

        Returns:
            "h w c" of this profile.
        """
        converted: Pixels = imagecodecs.cms_transform(
            np.ascontiguousarray(pixels),
            _SRGB,
            self.data,
            colorspace="rgb",
            outcolorspace=self._space,
            outdtype=np.uint8 if bits == 8 else np.uint16,
            intent=self._intent,
        )
        return converted[..., None] if self.channels == 1 else converted

    @cached_property
    def is_srgb(self) -> bool:
        """Whether its colours are those of sRGB, so that nothing needs converting."""
        if self.channels == 4:
            return False
        levels = np.linspace(0, 65535, 33 if self.channels == 1 else 9).round().astype(np.uint16)
        grid = np.stack(np.meshgrid(*[levels] * self.channels, indexing="ij"), -1)
        grid = grid.reshape(1, -1, self.channels)
        difference = self.to_srgb(grid).astype(np.int64) - grid
        return bool(np.abs(difference).max() <= _SAME)
