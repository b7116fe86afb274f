"""Open a picture file: known formats only, bounded, every complaint one sentence."""

import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.formats import needs_heif, readable_formats

MAX_PIXELS = 178_956_970
"""Most pixels an input may have, read from its header before anything is decoded.

Twice Pillow's `MAX_IMAGE_PIXELS`: where Pillow itself stops, even if a caller has lifted
that setting. Decoded, such a picture takes half a gigabyte.
"""

# Decoders raise what they like at bytes nobody has foreseen.
_SURPRISES = (
    SyntaxError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, EOFError,
    struct.error,
)  # fmt: skip


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture, told by its content, without decoding it.

    What goes wrong with the file inside the block is told as well.

    Args:
        path: PNG, JPEG, WebP, BMP, TIFF, AVIF, or HEIC where pillow-heif is installed.

    Raises:
        ImageError: missing, a folder, not permitted, empty, of another format, damaged, or
            of more than `MAX_PIXELS` pixels.
    """
    if not stat.S_ISREG(mode_of(path)):
        raise ImageError(f"{path}: is not a file; give the path of a picture")
    too_large = f"{path}: has more than {MAX_PIXELS // 10**6} megapixels; crop or shrink it first"
    damaged = f"{path}: the picture is damaged or cut short; copy or download it again"
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; copy or download it again")
        # Pillow warns of large pictures, which are measured here, and of damaged metadata,
        # which is looked at apart.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=readable_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(too_large)
                yield image
    except Image.DecompressionBombError as error:
        raise ImageError(too_large) from error
    except UnidentifiedImageError as error:
        raise ImageError(_unknown(path)) from error
    except MemoryError as error:
        raise ImageError(f"{path}: does not fit in memory; crop or shrink it first") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own complaint about the content
            raise ImageError(damaged) from error
        raise unreadable(path, error) from error
    except _SURPRISES as error:
        raise ImageError(damaged) from error


def upright_size(path: Path) -> tuple[int, int]:
    """Give (width, height) of a picture as a viewer shows it, without decoding it.

    Raises:
        ImageError: see `opened`.
    """
    with opened(path) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        # The TIFF reader has turned its size already.
        is_turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"
        return (image.height, image.width) if is_turned else image.size


def mode_of(path: Path) -> int:
    """Return the kind of file behind `path`, or raise ImageError."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | ValueError) -> ImageError:
    """Say why the disk does not give a file."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: there is no such file or folder; check the name")
    reason = getattr(error, "strerror", None) or error
    return ImageError(f"{path}: cannot be read ({reason}); check the name and its permissions")


def _unknown(path: Path) -> str:
    if needs_heif(path):
        return (
            f"{path}: reading HEIC pictures needs the package pillow-heif; "
            "install it with: pip install 'nsarm[heif]'"
        )
    return (
        f"{path}: is not a PNG, JPEG, WebP, AVIF, BMP or TIFF picture, or its header is damaged; "
        "convert it to PNG first"
    )
