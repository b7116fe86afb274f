"""Pixels of 16 bits per channel, which Pillow would read as 8.

Letters: h w height and width in pixels, c channels.
"""

import logging
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

# It logs what it finds odd in a file; what matters is raised.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_PNG_DEPTH = 24  # offset of the bits per channel in a PNG's header
# Tags of a TIFF.
_WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _EXTRA, _FORMAT = 256, 257, 258, 262, 338, 339
_WHITE_IS_ZERO, _RGB = 0, 2
_ASSOCIATED = 1


def read_16_bits(path: Path, image: Image.Image) -> npt.NDArray[np.uint16] | None:
    """Decode a picture of 16-bit integers.

    Args:
        path: of the picture.
        image: the same, opened by Pillow, which has checked its size.

    Returns:
        "h w c", not turned: c is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha, where colours
        are not multiplied by alpha. None when the file holds something else.

    Raises:
        ValueError, RuntimeError: the file is damaged.
    """
    if image.format == "PNG":
        pixels = _png(path)
    elif isinstance(image, TiffImageFile):
        return _tiff(path, image)
    else:
        return None
    if pixels is not None and pixels.shape[:2] != (image.height, image.width):
        raise ValueError("the decoded size is not that of the header")
    return pixels


def _png(path: Path) -> npt.NDArray[np.uint16] | None:
    with path.open("rb") as file:
        if file.read(_PNG_DEPTH + 1)[_PNG_DEPTH:] != b"\x10":
            return None
    pixels: npt.NDArray[np.uint16] = imagecodecs.png_decode(path.read_bytes())
    return pixels.reshape(*pixels.shape[:2], -1)


def _tiff(path: Path, image: TiffImageFile) -> npt.NDArray[np.uint16] | None:
    tags = image.tag_v2
    bits = tags.get(_BITS, ())
    is_integer = all(kind == 1 for kind in tags.get(_FORMAT, (1,)))
    photometric = tags.get(_PHOTOMETRIC)
    if not (bits and set(bits) == {16} and is_integer and photometric in (0, 1, _RGB)):
        return None
    colors = 3 if photometric == _RGB else 1
    size = (tags[_LENGTH], tags[_WIDTH])  # of the rows as stored; Pillow's is that of the turned
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.shape not in {size, (*size, len(bits)), (len(bits), *size)}:
            raise ValueError(f"unexpected shape {page.shape}")
        pixels = np.asarray(page.asarray())
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.shape[:2] != size:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[2] < colors:
        raise ValueError("fewer channels than colours")
    # Beyond colours and alpha there may be masks and the like, which no output keeps.
    extra = tags.get(_EXTRA, ())
    pixels = pixels[..., : colors + bool(extra and extra[0] in (1, 2))].astype(np.uint16)
    if photometric == _WHITE_IS_ZERO:
        pixels[..., 0] = 65535 - pixels[..., 0]
    if pixels.shape[2] > colors and extra[0] == _ASSOCIATED:
        alpha = pixels[..., colors:].astype(np.uint32)
        full = pixels[..., :colors].astype(np.uint32) * 65535 // np.maximum(alpha, 1)
        pixels[..., :colors] = full.clip(0, 65535)
    return pixels
