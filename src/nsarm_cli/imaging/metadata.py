"""What a picture file says about its picture, and what of it is true of the larger one.

Kept are EXIF with its camera and place directories, XMP and the resolution in dots per inch.
Orientation is reset, since the pixels are turned; sizes follow the output; the thumbnail goes.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image

# Tags of the first directory that describe the picture and not how its file is laid out.
_DESCRIPTIVE = {
    270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 4600, 18246, 18249, 33432,
    *range(0x9C9B, 0x9CA0),
}  # fmt: skip
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_WIDTH, _HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
_ACROSS, _DOWN, _UNIT = 282, 283, 296  # resolution; unit 2 is inches

_NAMESPACE = "https://ns.nsarm.dev/upscale/1.0/"
_MARK = _NAMESPACE.encode()

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, struct.error)
"""What Pillow raises on damaged metadata."""


@dataclass(frozen=True)
class Metadata:
    """Descriptions of a picture.

    Attributes:
        exif: the first directory by tag, without those below; empty for none.
        camera: the Exif directory.
        place: the GPS directory.
        xmp: an XMP packet, or None.
        dpi: dots per inch across and down, or None.
    """

    exif: Mapping[int, Any]
    camera: Mapping[int, Any]
    place: Mapping[int, Any]
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None

    def of_output(self, width: int, height: int) -> "Metadata":
        """Say what is true of an upright picture of another size."""
        exif = dict(self.exif)
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        sizes: dict[int, int] = {_WIDTH: width, _HEIGHT: height}
        camera = {tag: sizes.get(tag, value) for tag, value in self.camera.items()}
        return replace(self, exif=exif, camera=camera, xmp=_upright_xmp(self.xmp))

    def turned(self) -> "Metadata":
        """Exchange what goes across and what goes down."""
        exif = dict(self.exif)
        if _ACROSS in exif and _DOWN in exif:
            exif[_ACROSS], exif[_DOWN] = exif[_DOWN], exif[_ACROSS]
        return replace(self, exif=exif, dpi=self.dpi and self.dpi[::-1])

    def with_dpi_in_exif(self) -> "Metadata":
        """Repeat the resolution in EXIF, for formats that have no other place for it."""
        if self.dpi is None or _ACROSS in self.exif:
            return self
        resolution = {_ACROSS: self.dpi[0], _DOWN: self.dpi[1], _UNIT: 2}
        return replace(self, exif={**self.exif, **resolution})

    def with_settings(self, settings: Mapping[str, Any]) -> "Metadata":
        """Record how a picture was made, as XMP, which every output format can hold."""
        return replace(self, xmp=_add_settings(self.xmp, settings))

    def exif_object(self) -> Image.Exif | None:
        """Collect the directories for Pillow; None when there is nothing."""
        if not (self.exif or self.camera or self.place):
            return None
        exif = Image.Exif()
        exif.update(self.exif)
        for directory, tags in zip(_DIRECTORIES, (self.camera, self.place), strict=True):
            if tags:
                exif.get_ifd(directory).update(tags)
        return exif


NOTHING = Metadata({}, {}, {})


def read_metadata(image: Image.Image) -> tuple[Metadata, bool]:
    """Take the metadata of an opened picture.

    Returns:
        What could be read, and whether some was damaged and is left out.
    """
    dpi, xmp = _dpi(image), _xmp(image)
    try:
        exif = image.getexif()
        found = Metadata(
            {tag: value for tag, value in exif.items() if tag in _DESCRIPTIVE},
            dict(exif.get_ifd(ExifTags.IFD.Exif)),
            dict(exif.get_ifd(ExifTags.IFD.GPSInfo)),
            xmp=xmp,
            dpi=dpi,
        )
        written = found.exif_object()
        if written is not None:
            written.tobytes()  # what cannot be written again is of no use
    except _DAMAGE:
        return replace(NOTHING, xmp=xmp, dpi=dpi), True
    return found, False


def is_ours(image: Image.Image) -> bool:
    """Whether an opened picture says that it is an output of this program."""
    return _MARK in (_xmp(image) or b"")


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        if "dpi" in image.info:
            across, down = (float(value) for value in image.info["dpi"])
        else:
            exif = image.getexif()
            unit = {2: 1.0, 3: 2.54}[exif[_UNIT]]
            across, down = float(exif[_ACROSS]) * unit, float(exif[_DOWN]) * unit
    except (*_DAMAGE, ZeroDivisionError):
        return None
    # 1 is what Pillow says of a TIFF that does not say.
    return (across, down) if 1 < across < 1e6 and 1 < down < 1e6 else None


def _xmp(image: Image.Image) -> bytes | None:
    value = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) and value.strip(b"\0 \n") else None


def _upright_xmp(xmp: bytes | None) -> bytes | None:
    """Reset the orientation that some programs repeat in XMP."""
    if xmp is None:
        return None
    xmp = re.sub(rb'(tiff:Orientation\s*=\s*["\'])[2-8]', rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8]", rb"\g<1>1", xmp)


def _add_settings(xmp: bytes | None, settings: Mapping[str, Any]) -> bytes:
    text = quoteattr(json.dumps(settings, ensure_ascii=True))
    description = (
        f'<rdf:Description rdf:about="" xmlns:nsarm="{_NAMESPACE}" nsarm:Settings={text}/>'
    ).encode()
    end = b"</rdf:RDF>"
    if xmp is not None and _MARK in xmp:  # made by us before: the last run is what counts
        xmp = re.sub(rb'<rdf:Description[^>]*"' + re.escape(_MARK) + rb'"[^>]*/>', b"", xmp)
    if xmp is not None and xmp.count(end) == 1:
        return xmp.replace(end, description + end)
    if xmp is not None and xmp.strip():
        return xmp  # unknown dialect: the user's own words are worth more than ours
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        + description
        + b"</rdf:RDF></x:xmpmeta>"
        b'<?xpacket end="w"?>'
    )
