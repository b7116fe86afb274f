"""High-resolution photographs for training, addressed by index and decoded on demand.

Small sets stay decoded in memory, since a JPEG costs more time than a crop.
"""

import io
import logging
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.imaging.rgb import to_rgb, upright
from nsarm_cli.training.listing import SUFFIXES, Listing, list_pictures
from nsarm_cli.training.records import Record

__all__ = ["SUFFIXES", "PhotoStore", "Pixels", "decode", "ratio_of"]

Pixels = NDArray[np.uint8]
"""A picture, "h w 3"."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, ArithmeticError, struct.error),
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged files, by format."""

_HEAD_BYTES = 1 << 17
"""Enough for the header of nearly every picture."""

_QUARTER_TURNS = {5, 6, 7, 8}
_ORIENTATION = 0x0112

_log = logging.getLogger(__name__)


class PhotoStore:
    """Indexed access to the pictures under some folders, files, lists or tar shards.

    Args:
        paths: see `listing.list_pictures`.
        cache_bytes: decoded pictures kept in memory, at most this many bytes.
        most_faults: lines of lists that cannot be used and are left out, with a warning.

    Raises:
        ConfigError: a path does not exist or nothing in it is a picture; there are more faults.
    """

    def __init__(
        self, paths: Sequence[Path], cache_bytes: int = 2 << 30, *, most_faults: int = 0
    ) -> None:
        self.listing: Listing = list_pictures(paths)
        for claim in self.listing.claims:
            _log.warning("%s", claim)
        _tell(self.listing.faults, most_faults)
        self._cache: dict[int, Pixels] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self.listing.records)

    @property
    def records(self) -> list[Record]:
        """What is known of each picture."""
        return self.listing.records

    def name(self, index: int) -> str:
        """File or member name of a picture."""
        return self.records[index].name

    def __getitem__(self, index: int) -> Pixels:
        """Decode one picture to "h w 3", uint8 RGB, upright.

        Raises:
            ImageError: the picture cannot be decoded.
        """
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        pixels = decode(self.records[index])
        if pixels.nbytes <= self._cache_left:
            self._cache[index] = pixels
            self._cache_left -= pixels.nbytes
        return pixels


def _tell(faults: Sequence[str], most: int) -> None:
    if len(faults) > most:
        raise ConfigError(
            f"{len(faults)} lines of lists cannot be used, more than the {most} that corrupt "
            f"allows; the first is {faults[0]}; correct them (nsarm train check-data tells all), "
            "or set corrupt higher"
        )
    if faults:
        _log.warning("%d lines of lists are left out; the first is %s", len(faults), faults[0])


def decode(record: Record) -> Pixels:
    """Read and decode a picture, upright, on white where it is transparent.

    Raises:
        ImageError: the picture cannot be read or decoded.
    """
    try:
        with Image.open(io.BytesIO(record.picture.read()), formats=_FORMATS) as image:
            image.load()
            return np.asarray(to_rgb(upright(image), record.name))
    except ImageError:
        raise
    except _UNREADABLE as error:
        raise _corrupt(record, error) from error


def ratio_of(record: Record) -> float:
    """Height by width of a picture, as its list claims or as its header says.

    Raises:
        ImageError: there is no claim and the header cannot be read.
    """
    if record.ratio is not None:
        return record.ratio
    try:
        try:
            return _ratio_in(record.picture.read(_HEAD_BYTES))
        except _UNREADABLE:
            return _ratio_in(record.picture.read())  # TIFF may have its header at the end
    except _UNREADABLE as error:
        raise _corrupt(record, error) from error


def _ratio_in(data: bytes) -> float:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        return width / height if turned else height / width


def _corrupt(record: Record, error: Exception) -> ImageError:
    # Pillow's own sentence has the address of a buffer, and would be new each time.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = f"it is no {', '.join(_FORMATS)} picture" if unknown else error
    return ImageError(f"{record.where()} cannot be decoded ({reason}); remove or replace it")
