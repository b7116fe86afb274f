"""A TIFF file written strip by strip, with the directory behind the pixels.

Above 4 GB it becomes a BigTIFF. Letters: r rows of one strip, w width in pixels, c channels.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import ExifTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nsarm_cli.imaging.layout import Layout
from nsarm_cli.imaging.profiles import Pixels

_STRIP = 64
_LEVEL = 4
_CLASSIC_LIMIT = 3_900_000_000  # bytes of pixels, before compression, that offsets of 4 bytes reach

_HEADER = b"II*\0\x08\0\0\0"
_BIG_HEADER = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"
_OFFSETS, _COUNTS = 273, 279
_XMP, _PROFILE = 700, 34675
_BYTE, _LONG, _UNDEFINED, _LONG8 = 1, 4, 7, 16  # types of values


def write_tiff(file: BinaryIO, layout: Layout, strips: Iterator[Pixels]) -> None:
    """Write a picture, deflated with horizontal differences.

    Args:
        file: open for writing, at its beginning, seekable.
        layout: of the picture.
        strips: "r w c" of the layout, from top to bottom.
    """
    size = layout.width * layout.height * layout.channels * layout.bits // 8
    is_big = size > _CLASSIC_LIMIT
    header = _BIG_HEADER if is_big else _HEADER
    file.write(header)
    offsets, counts = [], []
    for strip in _of_height(strips):
        data = zlib.compress(imagecodecs.delta_encode(strip, axis=1).tobytes(), _LEVEL)
        offsets.append(file.tell())
        counts.append(len(data))
        file.write(data)
    file.write(b"\0" * (-file.tell() % 8))
    at = file.tell()
    file.write(_directory(header, layout, at, offsets, counts))
    file.seek(8 if is_big else 4)
    file.write(struct.pack("<Q" if is_big else "<I", at))


def _of_height(strips: Iterator[Pixels]) -> Iterator[Pixels]:
    """Regroup rows into the strips of the file, all but the last equally high."""
    held: list[Pixels] = []
    count = 0
    for strip in strips:
        held.append(strip)
        count += len(strip)
        if count >= _STRIP:
            rows = np.concatenate(held)
            whole = count - count % _STRIP
            yield from (rows[top : top + _STRIP] for top in range(0, whole, _STRIP))
            held, count = [rows[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _directory(
    header: bytes, layout: Layout, at: int, offsets: list[int], counts: list[int]
) -> bytes:
    is_big = header is _BIG_HEADER
    directory = ImageFileDirectory_v2(header)
    tags: dict[int, Any] = {
        256: layout.width,
        257: layout.height,
        258: (layout.bits,) * layout.channels,
        259: 8,  # deflate
        262: 1 if layout.is_grey else 2,  # black is zero, RGB
        277: layout.channels,
        278: _STRIP,
        284: 1,  # channels of a pixel together
        317: 2,  # horizontal differences
        339: (1,) * layout.channels,  # unsigned integers
    }
    if layout.has_alpha:
        tags[338] = 2  # alpha, colours not multiplied by it
    metadata = layout.metadata
    tags |= {tag: value for tag, value in metadata.exif.items() if tag not in (282, 283, 296)}
    if metadata.dpi is not None:
        tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
    wide = _LONG8 if is_big else _LONG
    typed: list[tuple[int, int, Any]] = [
        (_OFFSETS, wide, tuple(0 for _ in offsets)),
        (_COUNTS, wide, tuple(counts)),
        (_XMP, _BYTE, metadata.xmp),
        (_PROFILE, _UNDEFINED, layout.profile and layout.profile.data),
        (int(ExifTags.IFD.Exif), _LONG, dict(metadata.camera)),
        (int(ExifTags.IFD.GPSInfo), _LONG, dict(metadata.place)),
    ]
    for tag, kind, value in typed:
        if value:
            directory.tagtype[tag] = kind
            tags[tag] = value
    for tag, value in tags.items():
        directory[tag] = value
    return _with_offsets(directory.tobytes(at), at, offsets, is_big=is_big)


def _with_offsets(data: bytes, at: int, offsets: list[int], *, is_big: bool) -> bytes:
    """Fill in where the strips lie; Pillow can only name places behind the directory."""
    changed = bytearray(data)
    entry, first, place, one = (20, 8, 12, "Q") if is_big else (12, 2, 8, "I")
    starts = range(first, len(data), entry)
    start = next(s for s in starts if struct.unpack_from("<H", data, s)[0] == _OFFSETS) + place
    if len(offsets) > 1:
        start = struct.unpack_from(f"<{one}", data, start)[0] - at
    struct.pack_into(f"<{len(offsets)}{one}", changed, start, *offsets)
    return bytes(changed)
