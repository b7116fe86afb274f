"""What an output holds, and the finished pixels for it, strip by strip.

Letters: c channels, r rows of one strip, w width in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nsarm_cli.imaging.formats import OutputFormat
from nsarm_cli.imaging.metadata import Metadata
from nsarm_cli.imaging.picture import Picture
from nsarm_cli.imaging.profiles import Pixels, Profile
from nsarm_cli.imaging.resample import resize_rows
from nsarm_cli.imaging.rows import RowReader, Rows

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow turns RGB into grey


_Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Layout:
    """A picture to write.

    Attributes:
        width: in pixels.
        height: likewise.
        is_grey: one colour channel, else RGB.
        has_alpha: one channel more, last; colours are not multiplied by it.
        bits: per channel, 8 or 16.
        profile: of the colours; None means sRGB.
        metadata: true of this picture.
    """

    width: int
    height: int
    is_grey: bool
    has_alpha: bool
    bits: int
    profile: Profile | None
    metadata: Metadata

    @property
    def channels(self) -> int:
        """Colours and alpha."""
        return (1 if self.is_grey else 3) + self.has_alpha


def layout_for(
    picture: Picture, width: int, height: int, kind: OutputFormat
) -> tuple[Layout, list[str]]:
    """Keep of a picture what the format of its output can hold.

    Args:
        picture: the input.
        width: of the output, in pixels.
        height: likewise.
        kind: the format.

    Returns:
        The layout, and what is lost, each a clause without a subject.
    """
    layout = Layout(
        width,
        height,
        is_grey=picture.is_grey,
        has_alpha=picture.alpha is not None,
        bits=picture.bits,
        profile=picture.profile,
        metadata=picture.metadata.of_output(width, height),
    )
    lost = []
    if layout.has_alpha and not kind.has_alpha:
        layout = replace(layout, has_alpha=False)
        lost.append("its transparent parts become white")
    if layout.bits == 16 and not kind.has_16_bits:
        layout = replace(layout, bits=8)
        lost.append("its 16 bits per channel become 8")
    if layout.is_grey and kind.name in ("WEBP", "AVIF"):
        layout = replace(layout, is_grey=False, profile=None)
    return layout, lost


def finish(picture: Picture, rows: Rows, layout: Layout) -> Iterator[Pixels]:
    """Turn rows of a model into pixels of the output.

    Colours go back into the profile of the input, grey stays grey. What the model has not seen,
    alpha and the part of colours that lies beyond sRGB, is enlarged with a Lanczos filter.

    Args:
        picture: the input.
        rows: the result, sRGB.
        layout: of the output, of the same size.

    Yields:
        "r w c" of the layout.
    """
    size = (layout.height, layout.width)
    alpha = extra = None
    if picture.alpha is not None:
        alpha = RowReader(resize_rows(picture.alpha_rows(), *size))
    if layout.profile is not None and not layout.profile.is_srgb:
        extra = RowReader(resize_rows(picture.beyond_srgb(), *size))
    top = 0
    for strip in rows.strips:
        bottom = top + strip.shape[1]
        unit = _pixels(strip * 0.5 + 0.5)
        if extra is not None and layout.profile is not None:
            unit = layout.profile.from_srgb(_sixteen(unit), 16) / 65535
            unit = (unit + _pixels(extra.read(top, bottom))).clip(0, 1)
        elif layout.is_grey:
            unit = (unit @ _LUMA)[..., None]
        if alpha is not None:
            cover = _pixels(alpha.read(top, bottom) * 0.5 + 0.5)
            if layout.has_alpha:
                unit = np.concatenate([unit, cover], -1)
            else:
                unit = unit * cover + (1 - cover)  # on white, as viewers show it
        yield (
            _sixteen(unit)
            if layout.bits == 16
            else (unit.clip(0, 1) * 255).round().astype(np.uint8)
        )
        top = bottom


def _pixels(strip: Tensor) -> _Floats:
    """Turn "c r w" into "r w c"."""
    return np.ascontiguousarray(strip.numpy().transpose(1, 2, 0))


def _sixteen(unit: _Floats) -> npt.NDArray[np.uint16]:
    return (unit.clip(0, 1) * 65535).round().astype(np.uint16)
