"""Picture files: check the outputs, read and write plain RGB pictures.

What can be refused early is: `check_output` needs no pixels. Pictures with all that belongs to
them are read by `picture` and written by `output`. Each error is one sentence that names the
file, the reason and the remedy.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.atomic import exists, temporary_name, unwritable, whole_file
from nsarm_cli.imaging.formats import check_size, output_format
from nsarm_cli.imaging.opening import opened
from nsarm_cli.imaging.rgb import to_rgb, upright

SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # Level 4 takes less than half the time of Pillow's 6 for about 5% more bytes.
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "AVIF": {"quality": 90},
}
"""Pillow's name of a format -> how it is written unless `--quality` says otherwise."""


def read_image(path: Path) -> Image.Image:
    """Read one picture, turned upright, as 8-bit RGB (see `rgb.to_rgb`).

    Args:
        path: of a format of `formats.readable_formats`; the first frame is read.

    Returns:
        A picture of mode "RGB", without metadata.

    Raises:
        ImageError: see `opening.opened`.
    """
    with opened(path) as image:
        image.load()
        return to_rgb(upright(image), str(path))


def check_output(path: Path, source: Path | Iterable[Path], overwrite: bool) -> None:
    """Refuse an output that must not or cannot be written; make its folder if it is missing.

    Args:
        path: the output.
        source: the input, or all inputs of the run: none of them is ever replaced, whatever
            name or link leads to it.
        overwrite: an existing file may be replaced.

    Raises:
        ImageError: unknown ending, or see `check_place`.
    """
    output_format(path)
    check_place(path, source, overwrite)


def check_place(path: Path, source: Path | Iterable[Path], overwrite: bool) -> None:
    """Refuse a file that must not or cannot be written, of whatever ending.

    Args:
        path: the file; its folder is made if it is missing.
        source: see `check_output`; so is `overwrite`.
        overwrite: an existing file may be replaced.

    Raises:
        ImageError: an input; a folder; exists already; its folder cannot be made or written in.
    """
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; choose another name for the picture")
        if path.exists():
            for each in [source] if isinstance(source, Path) else source:
                if _is_same(path, each):
                    raise ImageError(f"{path}: is the input {each}; choose another name or folder")
        if os.path.lexists(path) and not overwrite:
            raise exists(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asking for permission is not enough: full, read-only and odd file systems also refuse.
        probe = temporary_name(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except FileExistsError as error:
        raise ImageError(f"{path}: its folder is a file; choose another folder with -o") from error
    except OSError as error:
        raise unwritable(path, error) from error


def write_image(image: Image.Image, path: Path, *, overwrite: bool) -> None:
    """Write a picture so that `path` holds either all of it or what it held before.

    JPEG and WebP are written at quality 95, JPEG with full colour resolution.

    Args:
        image: mode "RGB".
        path: ends in one of `formats.OUTPUT_FORMATS`; its folder exists.
        overwrite: a file of this name may be replaced; otherwise it is left alone even if it
            appeared during the work.

    Raises:
        ImageError: unknown ending, too large for the format, exists, or the disk refuses.
    """
    name = output_format(path).name
    check_size(path, image.width, image.height)
    # Encoded in memory: given a real file, Pillow misses a write that a full disk cuts short.
    encoded = io.BytesIO()
    image.save(encoded, format=name, **SAVE_OPTIONS[name])
    with whole_file(path, overwrite=overwrite) as file:
        file.write(encoded.getbuffer())


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False  # a missing input is reported when it is read
