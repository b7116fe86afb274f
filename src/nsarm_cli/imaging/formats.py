"""The file formats that are read and written, and what each of them can hold."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nsarm_cli.errors import ImageError

_ALWAYS_READ = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF")

_ALWAYS_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")

_HEIF_SUFFIXES = (".heic", ".heif")


@dataclass(frozen=True)
class OutputFormat:
    """What an output format can hold.

    Attributes:
        name: Pillow's.
        longest: pixels of the longest side; None for no limit that matters.
        most: pixels of the whole picture, where an encoder needs all of it in memory;
            None where rows are written as they come.
        has_alpha: whether it stores transparency.
        has_16_bits: whether it stores 16 bits per channel.
        has_quality: whether `--quality` means something.
    """

    name: str
    longest: int | None = None
    most: int | None = None
    has_alpha: bool = True
    has_16_bits: bool = False
    has_quality: bool = True


_PNG = OutputFormat("PNG", longest=2**31 - 1, has_16_bits=True, has_quality=False)
# JPEG could store 65535, but its encoder stops here.
_JPEG = OutputFormat("JPEG", longest=65500, most=400_000_000, has_alpha=False)
_WEBP = OutputFormat("WEBP", longest=16383)
_TIFF = OutputFormat("TIFF", longest=2**31 - 1, has_16_bits=True, has_quality=False)
_AVIF = OutputFormat("AVIF", longest=16384, most=150_000_000)

OUTPUT_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".avif": _AVIF,
}
"""Ending of an output file, in lower case -> its format."""


@cache
def readable_formats() -> tuple[str, ...]:
    """List Pillow's names of the formats that are read.

    HEIF is among them where the package pillow-heif is installed (extra "heif").
    """
    try:
        import pillow_heif  # noqa: PLC0415 (optional)
    except ImportError:
        return _ALWAYS_READ
    pillow_heif.register_heif_opener()
    return (*_ALWAYS_READ, "HEIF")


def readable_suffixes() -> tuple[str, ...]:
    """List the endings that are picked up from a folder; a named file may have any ending."""
    has_heif = "HEIF" in readable_formats()
    return (*_ALWAYS_SUFFIXES, *_HEIF_SUFFIXES) if has_heif else _ALWAYS_SUFFIXES


def needs_heif(path: Path) -> bool:
    """Whether a name promises a HEIC picture and nothing is installed that reads one."""
    return path.suffix.lower() in _HEIF_SUFFIXES and "HEIF" not in readable_formats()


def output_format(path: Path) -> OutputFormat:
    """Look up the format that the ending of `path` names.

    Raises:
        ImageError: none, or one that is not written.
    """
    ending = path.suffix.lower()
    if ending not in OUTPUT_FORMATS:
        what = f"the ending {path.suffix}" if ending else "a name without an ending"
        raise ImageError(
            f"{path}: {what} names no format that can be written; "
            f"use {' '.join(OUTPUT_FORMATS)}, or a folder with a {os.sep} at its end"
        )
    return OUTPUT_FORMATS[ending]


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture that the format of `path` cannot hold.

    Args:
        path: the output.
        width: of the output, in pixels.
        height: of the output, in pixels.

    Raises:
        ImageError: a side or the whole is too large for the format, or the ending is unknown.
    """
    kind = output_format(path)
    if kind.longest is not None and max(width, height) > kind.longest:
        raise ImageError(
            f"{path}: a {width}x{height} picture is too large for {path.suffix} (at most "
            f"{kind.longest} pixels a side); write .png or .tif instead"
        )
    if kind.most is not None and width * height > kind.most:
        raise ImageError(
            f"{path}: a {width}x{height} picture is too large for {path.suffix}, which is encoded "
            f"in memory (at most {kind.most // 10**6} megapixels); write .png or .tif instead"
        )
