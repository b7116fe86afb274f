"""Any picture Pillow can decode, as an upright 8-bit RGB picture."""

import struct

import numpy as np
from PIL import ExifTags, Image

from nsarm_cli.errors import ImageError

_WHITE = (255, 255, 255)

# What undoes each value of the Exif orientation tag; 1 (upright) and unknown values do nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, name: str = "picture") -> Image.Image:
    """Turn a picture of any mode into 8-bit RGB.

    Transparent parts are shown on white, as most viewers do; grey becomes three equal
    channels; 16-bit grey is rounded to 8 bits; palettes are looked up; CMYK is inverted
    without a colour profile.

    Args:
        image: any mode.
        name: how an error calls the picture.

    Returns:
        A new picture of mode "RGB" without metadata.

    Raises:
        ImageError: 32-bit numbers, whose range no picture file states.
    """
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name}: holds 32-bit numbers whose white is unknown; save it with 8 or 16 bits first"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion drops the low byte; rounding halves the error.
        grey = np.asarray(image).astype(np.uint32)
        rgb = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    elif image.has_transparency_data:
        # Premultiplied grey is the one mode that cannot become RGBA in one step.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        rgb = Image.new("RGB", image.size, _WHITE)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def upright(image: Image.Image) -> Image.Image:
    """Turn or mirror a picture as its Exif orientation asks.

    Args:
        image: already decoded: the TIFF reader turns the picture itself and then removes the tag.

    Returns:
        The picture as a viewer shows it; the same object when there is nothing to do.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, SyntaxError, ValueError, struct.error):
        return image  # damaged metadata says nothing about the pixels
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
