"""Write a finished picture in the format of its name, whole or not at all."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from nsarm_cli.imaging.atomic import whole_file
from nsarm_cli.imaging.files import SAVE_OPTIONS
from nsarm_cli.imaging.formats import check_size, output_format
from nsarm_cli.imaging.layout import Layout
from nsarm_cli.imaging.png import write_png
from nsarm_cli.imaging.profiles import Pixels
from nsarm_cli.imaging.tiff import write_tiff

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_SEGMENT = 65_000
"""Bytes of EXIF or XMP that a JPEG can hold in one piece."""


def write_picture(
    path: Path,
    layout: Layout,
    strips: Iterator[Pixels],
    *,
    overwrite: bool,
    quality: int | None = None,
) -> None:
    """Write a picture while its strips come.

    PNG and TIFF are written row by row; the encoders of the other formats need the whole
    picture in memory, so `formats.check_size` bounds it.

    Args:
        path: ends in one of `formats.OUTPUT_FORMATS`; its folder exists.
        layout: of the picture.
        strips: "r w c" of the layout; what they raise passes through, and nothing is written.
        overwrite: a file of this name may be replaced.
        quality: from 1 to 100, where the format has such a thing; 95 (AVIF 90) by default.

    Raises:
        ImageError: unknown ending, too large for the format, exists, or the disk refuses.
    """
    kind = output_format(path)
    check_size(path, layout.width, layout.height)
    with whole_file(path, overwrite=overwrite) as file:
        if kind.name == "PNG":
            write_png(file, layout, strips)
        elif kind.name == "TIFF":
            write_tiff(file, layout, strips)
        else:
            _write_at_once(file, kind.name, layout, strips, quality)


def _write_at_once(
    file: BinaryIO, name: str, layout: Layout, strips: Iterator[Pixels], quality: int | None
) -> None:
    image = Image.new(_MODES[layout.channels], (layout.width, layout.height))
    top = 0
    for strip in strips:
        pixels = strip[..., 0] if layout.channels == 1 else strip
        image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, top))
        top += len(strip)
    options: dict[str, Any] = dict(SAVE_OPTIONS[name])
    if quality is not None:
        options["quality"] = quality
    if layout.profile is not None:
        options["icc_profile"] = layout.profile.data
    metadata = layout.metadata
    if name in ("WEBP", "AVIF"):
        metadata = metadata.with_dpi_in_exif()
    exif = metadata.exif_object()
    packed = None if exif is None else exif.tobytes()
    if packed is not None and (name != "JPEG" or len(packed) < _SEGMENT):
        options["exif"] = packed
    if metadata.xmp is not None and (name != "JPEG" or len(metadata.xmp) < _SEGMENT):
        options["xmp"] = metadata.xmp
    if metadata.dpi is not None and name == "JPEG":
        options["dpi"] = tuple(round(value) for value in metadata.dpi)
    # Encoded in memory: given a real file, Pillow misses a write that a full disk cuts short.
    encoded = io.BytesIO()
    image.save(encoded, format=name, **options)
    file.write(encoded.getbuffer())
