"""High-resolution photographs for training: folders of pictures or tar shards.

Pictures are addressed by index and decoded on demand; small sets stay decoded in
memory, since a JPEG costs more time than a crop.
"""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError

Pixels = NDArray[np.uint8]
"""A picture, "h w 3"."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class _Source:
    """A file, or a byte range of a tar file."""

    path: Path
    name: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read() if self.size is None else file.read(self.size)


class PhotoStore:
    """Indexed access to the pictures under some folders, files or tar shards.

    Args:
        paths: folders (searched recursively), picture files or `.tar` shards.
        cache_bytes: decoded pictures kept in memory, at most this many bytes.

    Raises:
        ConfigError: a path does not exist or nothing in it is a picture.
    """

    def __init__(self, paths: Sequence[Path], cache_bytes: int = 2 << 30) -> None:
        self._sources = [source for path in paths for source in _list_sources(path)]
        if not self._sources:
            raise ConfigError(
                f"{', '.join(str(p) for p in paths)}: no pictures found; "
                f"give a folder with {', '.join(SUFFIXES)} files or .tar shards"
            )
        self._cache: dict[int, Pixels] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self._sources)

    def name(self, index: int) -> str:
        """File or member name of a picture."""
        return self._sources[index].name

    def __getitem__(self, index: int) -> Pixels:
        """Decode one picture to "h w 3", uint8 RGB.

        Raises:
            ImageError: the picture cannot be decoded.
        """
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        source = self._sources[index]
        try:
            with Image.open(io.BytesIO(source.read()), formats=_FORMATS) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(
                f"{source.path}: {source.name} cannot be decoded ({error}); remove or replace it"
            ) from error
        if pixels.nbytes <= self._cache_left:
            self._cache[index] = pixels
            self._cache_left -= pixels.nbytes
        return pixels


def _list_sources(path: Path) -> list[_Source]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    elif path.is_file():
        files = [path]
    else:
        raise ConfigError(f"{path}: no such file or folder; give the training pictures with --data")
    sources: list[_Source] = []
    for file in files:
        if file.suffix.lower() == ".tar":
            sources.extend(_list_tar(file))
        elif _is_picture(file):
            sources.append(_Source(file, file.name))
    return sources


def _list_tar(path: Path) -> list[_Source]:
    try:
        with tarfile.open(path, "r:") as archive:
            return [
                _Source(path, member.name, member.offset_data, member.size)
                for member in archive
                if member.isfile() and _is_picture(Path(member.name))
            ]
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"{path}: not a readable tar shard ({error}); make it again") from error


def _is_picture(path: Path) -> bool:
    """By its name; hidden files such as the "._" ones of macOS are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
