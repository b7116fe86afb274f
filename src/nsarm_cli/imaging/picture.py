"""A picture as its file has it: pixels of its own depth and colours, alpha, profile, metadata.

Letters: h w height and width in pixels, c channels, r rows of one strip.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.deep import read_16_bits
from nsarm_cli.imaging.metadata import Metadata, read_metadata
from nsarm_cli.imaging.opening import opened
from nsarm_cli.imaging.profiles import Pixels, Profile
from nsarm_cli.imaging.rows import STRIP, Rows
from nsarm_cli.imaging.transparency import HiddenColors

# What undoes each value of the Exif orientation tag, as views that copy nothing.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: "h w c", of 8 or 16 bits; c is 1 for grey and 3 for RGB; colours are those of
            `profile`, and not multiplied by alpha.
        alpha: "h w" of as many bits, or None.
        profile: of the pixels, grey or RGB as they are; None means sRGB.
        metadata: as the file has it.
        notes: what a person should know about how it was read, each a clause without a subject.
    """

    pixels: Pixels
    alpha: Pixels | None
    profile: Profile | None
    metadata: Metadata
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def is_grey(self) -> bool:
        """Whether it has one colour channel."""
        return bool(self.pixels.shape[2] == 1)

    @property
    def bits(self) -> int:
        """Per channel: 8 or 16."""
        return 8 * self.pixels.itemsize

    @cached_property
    def _hidden(self) -> HiddenColors | None:
        if self.alpha is None or self.alpha.all():
            return None
        return HiddenColors(self.pixels, self.alpha)

    def rows(self) -> Rows:
        """Walk through the colours as sRGB, "3 r w"; what is transparent continues its edges."""
        return Rows(self.height, self.width, self._strips())

    def alpha_rows(self) -> Rows:
        """Walk through alpha, "1 r w", -1 where transparent.

        Raises:
            ValueError: there is none.
        """
        if self.alpha is None:
            raise ValueError("the picture has no alpha")
        alpha = self.alpha

        def strips() -> Iterator[Tensor]:
            for top in range(0, self.height, STRIP):
                yield _to_tensor(alpha[top : top + STRIP, :, None])

        return Rows(self.height, self.width, strips())

    def beyond_srgb(self) -> Rows:
        """Walk through what sRGB cannot show of the colours, "c r w".

        It is the difference, in the profile's own values from 0 to 1, between the pixels and
        what comes back of them from sRGB: nearly nothing but where colours are more saturated.

        Raises:
            ValueError: there is no profile.
        """
        if self.profile is None:
            raise ValueError("the picture has no profile")
        profile = self.profile

        def strips() -> Iterator[Tensor]:
            for strip in self._filled():
                again = profile.from_srgb(profile.to_srgb(strip), 16)
                yield (_to_tensor(strip) - _to_tensor(again)).div_(2)

        return Rows(self.height, self.width, strips())

    def _strips(self) -> Iterator[Tensor]:
        for strip in self._filled():
            if self.profile is not None and not self.profile.is_srgb:
                strip = self.profile.to_srgb(strip)  # noqa: PLW2901
            yield _to_tensor(strip).expand(3, -1, -1)

    def _filled(self) -> Iterator[Pixels]:
        for top in range(0, self.height, STRIP):
            strip = self.pixels[top : top + STRIP]
            if self._hidden is not None and self.alpha is not None:
                strip = self._hidden.fill(strip, self.alpha[top : top + STRIP], top)
            yield strip


def read_picture(path: Path) -> Picture:
    """Read one picture with all that belongs to it.

    Args:
        path: of a format of `formats.readable_formats`, told by its content. Of an animation or
            a file of several pages, the first is read.

    Raises:
        ImageError: see `opening.opened`; or it holds 32-bit numbers, whose white no file states.
    """
    with opened(path) as image:
        notes = _pages(image)
        profile_data = image.info.get("icc_profile")
        deep = read_16_bits(path, image)
        if deep is None or image.format == "PNG":
            image.load()
        metadata, is_damaged = read_metadata(image)
        orientation = metadata.exif.get(ExifTags.Base.Orientation)
        pixels, profile, more = _decoded(image, deep, profile_data, path)
    notes += more
    if is_damaged:
        notes.append("its EXIF data is damaged and left out")
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is not None:
        pixels = turn(pixels)
        if orientation in _SIDEWAYS:
            metadata = metadata.turned()
    colors = 1 if pixels.shape[2] <= 2 else 3
    alpha = pixels[..., colors] if pixels.shape[2] > colors else None
    return Picture(pixels[..., :colors], alpha, profile, metadata, tuple(notes))


def _decoded(
    image: Image.Image, deep: Pixels | None, profile_data: object, path: Path
) -> tuple[Pixels, Profile | None, list[str]]:
    """Give "h w c" with c from 1 to 4 (grey, grey and alpha, RGB, RGB and alpha), not turned."""
    profile, notes = None, []
    if isinstance(profile_data, bytes) and profile_data:
        try:
            profile = Profile(profile_data)
        except ValueError as error:
            notes.append(f"its colour profile is left out ({error})")
    if deep is None and image.mode == "CMYK":
        notes.append("its CMYK colours become sRGB")
        if profile is not None and profile.channels == 4:
            return _cmyk(image, profile), None, notes
        return np.asarray(image.convert("RGB")), None, notes
    pixels = deep if deep is not None else _channels(image, path)
    colors = 1 if pixels.shape[2] <= 2 else 3
    if profile is not None and profile.channels != colors:
        profile = None
        notes.append("its colour profile is left out (it is for another kind of colours)")
    return pixels, profile, notes


def _channels(image: Image.Image, path: Path) -> Pixels:
    """Look up palettes, take colour keys as alpha, and give "h w c" of 8 bits, or 16-bit grey."""
    mode = image.mode
    if mode in ("I", "F"):
        raise ImageError(
            f"{path}: holds 32-bit numbers whose white is unknown; save it with 8 or 16 bits first"
        )
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if mode in ("1", "L", "LA", "La"):
        wanted = "LA" if image.has_transparency_data else "L"
    else:
        wanted = "RGBA" if image.has_transparency_data else "RGB"
    pixels = np.asarray(image if mode == wanted else image.convert(wanted))
    return pixels.reshape(image.height, image.width, -1)


def _cmyk(image: Image.Image, profile: Profile) -> Pixels:
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        strip = np.asarray(image.crop((0, top, image.width, bottom)))
        rgb[top:bottom] = (profile.to_srgb(strip).astype(np.uint32) * 255 + 32767) // 65535
    return rgb


def _pages(image: Image.Image) -> list[str]:
    try:
        if getattr(image, "is_animated", False):
            return ["has several frames or pages; the first is taken"]
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, RuntimeError):
        pass  # a chain of pages that breaks; the first may still be whole
    image.seek(0)
    return []


def _to_tensor(strip: Pixels) -> Tensor:
    """Turn "r w c" into "c r w" in [-1, 1]."""
    top = np.iinfo(strip.dtype).max
    values = np.ascontiguousarray(np.moveaxis(strip, -1, 0)).astype(np.float32)
    return torch.from_numpy(values).div_(top).mul_(2).sub_(1)
