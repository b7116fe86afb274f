"""Valid pictures of every format that is read, and ways to spoil them."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

WIDTH, HEIGHT = 24, 18
_RNG = np.random.default_rng(0)
_SHADES = np.linspace(0, 255, HEIGHT * WIDTH * 4).reshape(HEIGHT, WIDTH, 4)
_PIXELS = (_SHADES + _RNG.normal(0, 12, _SHADES.shape)).clip(0, 255).astype(np.uint8)
_DEEP = _PIXELS.astype(np.uint16) * 257
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif.update({271: "Maker", 274: 6, 282: 72.0, 283: 72.0, 296: 2, 315: "Someone"})
    exif.get_ifd(34665).update({36867: "2024:01:02 03:04:05", 40962: WIDTH, 34855: 200})
    exif.get_ifd(34853).update({1: "N", 2: (47.0, 30.0, 15.0)})
    return exif


def _saved(mode: str, name: str, **options: object) -> bytes:
    image = Image.fromarray(_PIXELS)
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        options |= {"transparency": 3} if name == "PNG" else {}
    file = io.BytesIO()
    image.convert(mode).save(file, name, **options)
    return file.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", **options)
    return file.getvalue()


@cache
def valid_files() -> dict[str, bytes]:
    """Name with its ending -> a small picture, with metadata where the format has any."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3127, 0.3290, 1],
        primaries=[0.680, 0.320, 1, 0.265, 0.690, 1, 0.150, 0.060, 1], gamma=2.2,
    )  # fmt: skip
    rich = {"exif": _exif(), "icc_profile": wide, "xmp": _XMP}
    plain = rich | {"icc_profile": icc}
    frames = {"save_all": True, "append_images": [Image.new("RGBA", (WIDTH, HEIGHT))]}
    return {
        "rgb.png": _saved("RGB", "PNG", **rich, dpi=(72, 72)),
        "alpha.png": _saved("RGBA", "PNG"),
        "palette.png": _saved("P", "PNG"),
        "grey.png": _saved("L", "PNG", icc_profile=icc),
        "deep.png": imagecodecs.png_encode(_DEEP),
        "rgb.jpg": _saved("RGB", "JPEG", **rich, dpi=(72, 72)),
        "progressive.jpg": _saved("RGB", "JPEG", progressive=True),
        "grey.jpg": _saved("L", "JPEG", exif=_exif()),
        "cmyk.jpg": _saved("CMYK", "JPEG", dpi=(72, 72)),
        "lossy.webp": _saved("RGB", "WEBP", **plain),
        "lossless.webp": _saved("RGBA", "WEBP", lossless=True),
        "animated.webp": _saved("RGBA", "WEBP", **frames),
        "rgb.bmp": _saved("RGB", "BMP"),
        "palette.bmp": _saved("P", "BMP"),
        "deflate.tif": _saved("RGB", "TIFF", compression="tiff_adobe_deflate", icc_profile=icc),
        "lzw.tif": _saved("RGBA", "TIFF", compression="tiff_lzw"),
        "cmyk.tif": _saved("CMYK", "TIFF"),
        "pages.tif": _saved("RGB", "TIFF", **frames),
        "deep.tif": _tiff(_DEEP[..., :3]),
        "planar.tif": _tiff(_DEEP[..., :3].transpose(2, 0, 1), compression="deflate"),
        "tiled.tif": _tiff(_DEEP[..., :3], tile=(16, 16), compression="lzw"),
        "rgb.avif": _saved("RGB", "AVIF", **plain, speed=10),
        "alpha.avif": _saved("RGBA", "AVIF", speed=10),
        "rgb.heic": _saved("RGB", "HEIF", exif=_exif()),
        "alpha.heic": _saved("RGBA", "HEIF"),
    }


def mutate(name: str, rng: random.Random) -> bytes:
    """Spoil a valid file of `valid_files`; the same state of `rng` gives the same bytes."""
    data = bytearray(mutate_any(valid_files()[name], rng))
    if name.endswith(".png") and rng.random() < 0.7:
        data = _with_right_checksums(data)  # otherwise nothing behind them is ever reached
    return bytes(data)


def mutate_any(valid: bytes, rng: random.Random) -> bytes:
    """Spoil any bytes."""
    data = bytearray(valid)
    # Few changes reach deep into a decoder, many try its beginning.
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        rng.choice(_MUTATIONS)(data, rng)
    return bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_early(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(min(len(data), 200))] = rng.randrange(256)


def _noise(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    length = rng.randrange(1, 64)
    data[start : start + length] = rng.randbytes(length)


def _number(data: bytearray, rng: random.Random) -> None:
    """Put an extreme number where a length, an offset or a size may be."""
    value = rng.choice([0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    order = rng.choice("<>")
    raw = struct.pack(order + "I", value) if value > 0xFFFF else struct.pack(order + "H", value)
    start = rng.randrange(len(data) + 1)
    data[start : start + len(raw)] = raw


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.randrange(1, 40)]


def _repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.randrange(1, 200)]
    data[start:start] = piece * rng.choice([1, 1, 5])


def _splice(data: bytearray, rng: random.Random) -> None:
    """Go on in the middle of another picture."""
    other = rng.choice(list(valid_files().values()))
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]


_MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    _flip, _flip, _flip_early, _flip_early, _noise, _number, _number, _cut, _remove, _repeat,
    _splice,
]  # fmt: skip


def _with_right_checksums(data: bytearray) -> bytearray:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data
