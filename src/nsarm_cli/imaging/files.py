"""Picture files: find and read the inputs, check and write the outputs (`naming` names them).

What can be refused early is: `check_output` and `check_size` need no pixels. Each error is
one sentence that names the file, the reason and the remedy.
"""

import contextlib
import errno
import io
import os
import secrets
import stat
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.naming import output_format
from nsarm_cli.imaging.rgb import to_rgb, upright

MAX_PIXELS = 178_956_970
"""Most pixels an input may have, read from its header before anything is decoded.

Twice Pillow's `MAX_IMAGE_PIXELS`: where Pillow itself stops, even if a caller has lifted
that setting. Decoded, such a picture takes half a gigabyte.
"""

INPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings that are picked up from a folder; a file that is named may have any ending."""

_INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # Level 4 takes less than half the time of Pillow's 6 for about 5% more bytes.
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
}

# Longest side in pixels; JPEG could store 65535, but its encoder stops here.
_SIDE_LIMITS = {"JPEG": 65500, "WEBP": 16383}


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the pictures that the given files and folders stand for.

    Args:
        paths: files are taken as they are, whatever their ending; a folder stands for the
            files directly in it with an ending of `INPUT_SUFFIXES`, sorted by name, hidden
            ones left out.

    Returns:
        Files in the order given, each once.

    Raises:
        ImageError: a path is missing or neither file nor folder, or a folder has no pictures.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        files = _pictures_in(path) if stat.S_ISDIR(_mode(path)) else [path]
        for file in files:
            # Not the file's own resolve(): two links to one picture have two names and
            # therefore two outputs.
            found.setdefault(file.parent.resolve() / file.name, file)
    return list(found.values())


def read_image(path: Path) -> Image.Image:
    """Read one picture, turned upright, as 8-bit RGB (see `rgb.to_rgb`).

    Args:
        path: PNG, JPEG, WebP, BMP or TIFF, told by its content; the first frame is read.

    Returns:
        A picture of mode "RGB", without metadata.

    Raises:
        ImageError: missing, a folder, not permitted, empty, of another format, damaged, or
            of more than `MAX_PIXELS` pixels.
    """
    if not stat.S_ISREG(_mode(path)):
        raise ImageError(f"{path}: is not a file; give the path of a picture")
    too_large = f"{path}: has more than {MAX_PIXELS // 10**6} megapixels; crop or shrink it first"
    damaged = f"{path}: the picture is damaged or cut short; copy or download it again"
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; copy or download it again")
        # Pillow warns of large pictures, which are measured here, and of damaged metadata,
        # which is not used.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_INPUT_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(too_large)
                image.load()
                return to_rgb(upright(image), str(path))
    except Image.DecompressionBombError as error:
        raise ImageError(too_large) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: is not a PNG, JPEG, WebP, BMP or TIFF picture, or its header is damaged; "
            "convert it to PNG first"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: does not fit in memory; crop or shrink it first") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own complaint about the content
            raise ImageError(damaged) from error
        raise _unreadable(path, error) from error
    except (SyntaxError, ValueError) as error:
        raise ImageError(damaged) from error


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture that the format of `path` cannot hold.

    Args:
        path: the output.
        width: of the output, in pixels.
        height: of the output, in pixels.

    Raises:
        ImageError: a side is too long for the format, or the ending is unknown.
    """
    limit = _SIDE_LIMITS.get(output_format(path))
    if limit is not None and max(width, height) > limit:
        raise ImageError(
            f"{path}: a {width}x{height} picture is too large for {path.suffix} (at most {limit} "
            "pixels a side); write .png instead"
        )


def check_output(path: Path, source: Path | Iterable[Path], overwrite: bool) -> None:
    """Refuse an output that must not or cannot be written; make its folder if it is missing.

    Args:
        path: the output.
        source: the input, or all inputs of the run: none of them is ever replaced, whatever
            name or link leads to it.
        overwrite: an existing file may be replaced.

    Raises:
        ImageError: unknown ending; an input; a folder; exists already; its folder cannot be
            made or written in.
    """
    output_format(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; choose another name for the picture")
        if path.exists():
            for each in [source] if isinstance(source, Path) else source:
                if _is_same(path, each):
                    raise ImageError(f"{path}: is the input {each}; choose another name or folder")
        if os.path.lexists(path) and not overwrite:
            raise _exists(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asking for permission is not enough: full, read-only and odd file systems also refuse.
        probe = _temporary(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except FileExistsError as error:
        raise ImageError(f"{path}: its folder is a file; choose another folder with -o") from error
    except OSError as error:
        raise _unwritable(path, error) from error


def write_image(image: Image.Image, path: Path, *, overwrite: bool) -> None:
    """Write a picture so that `path` holds either all of it or what it held before.

    The bytes go to a hidden file beside `path`, which takes the name only once they are on the
    disk. JPEG and WebP are written at quality 95, JPEG with full colour resolution.

    Args:
        image: mode "RGB".
        path: ends in one of `naming.OUTPUT_FORMATS`; its folder exists.
        overwrite: a file of this name may be replaced; otherwise it is left alone even if it
            appeared during the work.

    Raises:
        ImageError: unknown ending, too large for the format, exists, or the disk refuses.
    """
    picture_format = output_format(path)
    check_size(path, image.width, image.height)
    # Encoded in memory: given a real file, Pillow misses a write that a full disk cuts short.
    encoded = io.BytesIO()
    image.save(encoded, format=picture_format, **_SAVE_OPTIONS[picture_format])
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(encoded.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _publish(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone already, or never made
            temporary.unlink()


def _publish(temporary: Path, path: Path) -> None:
    """Give `temporary` its final name unless that is taken (FileExistsError)."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # No hard links on this file system: hold the name with an empty file, then replace it.
        path.touch(exist_ok=False)
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink()
            raise


def _temporary(path: Path) -> Path:
    """Name a hidden neighbour that nothing else uses and whose name is never too long."""
    return path.with_name(f".nsarm-{secrets.token_hex(8)}.tmp")


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False  # a missing input is reported when it is read


def _mode(path: Path) -> int:
    """Return the kind of file behind `path`, or raise ImageError."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _pictures_in(folder: Path) -> list[Path]:
    try:
        pictures = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in INPUT_SUFFIXES
            and not file.name.startswith(".")
            and file.is_file()
        )
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not pictures:
        raise ImageError(
            f"{folder}: the folder holds no pictures; the known endings are "
            f"{' '.join(INPUT_SUFFIXES)}"
        )
    return pictures


def _unreadable(path: Path, error: OSError | ValueError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: there is no such file or folder; check the name")
    reason = getattr(error, "strerror", None) or error
    return ImageError(f"{path}: cannot be read ({reason}); check the name and its permissions")


def _unwritable(path: Path, error: OSError) -> ImageError:
    if error.errno == errno.ENOSPC:
        return ImageError(f"{path}: the disk is full; free space or choose another folder with -o")
    reason = error.strerror or error
    return ImageError(f"{path}: cannot be written ({reason}); choose another folder with -o")


def _exists(path: Path) -> ImageError:
    return ImageError(f"{path}: exists already; pass --overwrite or choose another name with -o")
