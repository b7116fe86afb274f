"""A PNG file written row by row, so that a picture of any size passes through.

Letters: b bytes of one pixel, r rows of one strip, w width in pixels.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from nsarm_cli.imaging.layout import Layout
from nsarm_cli.imaging.profiles import Pixels

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> grey, grey and alpha, RGB, RGB and alpha
_LEVEL = 4
_PIECE = 1 << 18  # bytes of one IDAT chunk
_INCHES_PER_METRE = 1 / 0.0254

_Bytes = npt.NDArray[np.uint8]


def write_png(file: BinaryIO, layout: Layout, strips: Iterator[Pixels]) -> None:
    """Write a picture.

    Each row is filtered as libpng does it: of none, left, up, average and Paeth the one whose
    differences are smallest in sum.

    Args:
        file: open for writing.
        layout: of the picture.
        strips: "r w c" of the layout, from top to bottom.
    """
    file.write(b"\x89PNG\r\n\x1a\n")
    depth, color = layout.bits, _COLOR_TYPES[layout.channels]
    _chunk(file, b"IHDR", struct.pack(">2I5B", layout.width, layout.height, depth, color, 0, 0, 0))
    _write_metadata(file, layout)
    packer = zlib.compressobj(_LEVEL, strategy=zlib.Z_FILTERED)
    pixel = layout.channels * depth // 8
    above = np.zeros((1, layout.width * pixel), np.uint8)
    held = bytearray()
    for strip in strips:
        raw = strip.astype(">u2") if depth == 16 else strip
        rows = np.frombuffer(raw.tobytes(), np.uint8).reshape(len(strip), -1)
        held += packer.compress(_filtered(rows, above, pixel))
        above = rows[-1:]
        while len(held) >= _PIECE:
            _chunk(file, b"IDAT", bytes(held[:_PIECE]))
            del held[:_PIECE]
    _chunk(file, b"IDAT", bytes(held) + packer.flush())
    _chunk(file, b"IEND", b"")


def _write_metadata(file: BinaryIO, layout: Layout) -> None:
    if layout.profile is not None:
        _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(layout.profile.data))
    else:
        _chunk(file, b"sRGB", b"\0")
    metadata = layout.metadata
    if metadata.dpi is not None:
        across, down = (round(value * _INCHES_PER_METRE) for value in metadata.dpi)
        _chunk(file, b"pHYs", struct.pack(">2IB", across, down, 1))
    exif = metadata.exif_object()
    if exif is not None:
        _chunk(file, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    if metadata.xmp is not None:
        _chunk(file, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)


def _filtered(rows: _Bytes, above: _Bytes, pixel: int) -> bytes:
    """Give each row the filter that suits it, with the filter's number before it.

    Args:
        rows: "r (w b)".
        above: "1 (w b)", the row before them.
        pixel: bytes of one pixel.
    """
    up = np.concatenate([above, rows[:-1]])
    left, corner = (np.pad(x, ((0, 0), (pixel, 0)))[:, :-pixel] for x in (rows, up))
    mean = ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)
    choices = np.stack([rows, rows - left, rows - up, rows - mean, rows - _paeth(left, up, corner)])
    # A difference counts by its distance from 0 as a signed byte.
    cost = np.minimum(choices, -choices).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    result = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    result[:, 0] = best
    result[:, 1:] = choices[best, np.arange(len(rows))]
    return result.tobytes()


def _paeth(left: _Bytes, up: _Bytes, corner: _Bytes) -> _Bytes:
    """Predict from whichever neighbour is nearest to left + up - corner."""
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    from_b = np.where(to_b <= to_c, up, corner)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, from_b)


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
