"""Published photographs that a set is made of: in a folder, or in the zip file as downloaded."""

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.files import read_image

Reader = Callable[[str], tuple[Image.Image, str]]
"""Reads a photograph by its name; gives it in RGB, with the SHA-256 of its file."""


@dataclass(frozen=True)
class Photographs:
    """Photographs that were published together.

    Attributes:
        name: of the collection.
        folder: that has them; the zip file has the same name.
        url: the official address of the zip file.
        licence: what their authors allow.
        names: without ending; each is a PNG file.
    """

    name: str
    folder: str
    url: str
    licence: str
    names: tuple[str, ...]

    @contextmanager
    def open(self, root: Path) -> Iterator[Reader]:
        """Find the photographs below a folder, or in it, and make them readable.

        Raises:
            ImageError: some are missing, or a file cannot be read.
        """
        packed = root / f"{self.folder}.zip"
        for folder in (root / self.folder, root):
            files = {name: folder / f"{name}.png" for name in self.names}
            if any(path.is_file() for path in files.values()):
                self._require_all([n for n, path in files.items() if path.is_file()], folder)
                yield lambda name, files=files: _read(files[name])  # type: ignore[misc]
                return
        if not packed.is_file():
            raise ImageError(
                f"{root}: has no photographs of {self.name}; get {self.url} ({self.licence}) and "
                f"put the file there, or a folder {self.folder} with {self.names[0]}.png to "
                f"{self.names[-1]}.png"
            )
        with self._open_zip(packed) as read:
            yield read

    @contextmanager
    def _open_zip(self, path: Path) -> Iterator[Reader]:
        damaged = ImageError(f"{path}: is damaged or incomplete; get it again from {self.url}")
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise damaged from error
        wanted = {f"{name}.png": name for name in self.names}
        with archive, tempfile.TemporaryDirectory() as place:
            inside = ((PurePosixPath(info.filename).name, info) for info in archive.infolist())
            members = {wanted[name]: info for name, info in inside if name in wanted}
            self._require_all(list(members), path)

            def read(name: str) -> tuple[Image.Image, str]:
                try:
                    content = archive.read(members[name])
                except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
                    raise damaged from error
                unpacked = Path(place) / f"{name}.png"  # ours, whatever the archive calls it
                unpacked.write_bytes(content)
                try:
                    return _read(unpacked)
                finally:
                    unpacked.unlink()

            yield read

    def _require_all(self, has: Sequence[str], place: Path) -> None:
        if missing := [name for name in self.names if name not in has]:
            raise ImageError(
                f"{place}: lacks {len(missing)} of the {len(self.names)} photographs of "
                f"{self.name}, the first is {missing[0]}.png; complete it from {self.url}"
            )


def _read(path: Path) -> tuple[Image.Image, str]:
    picture = read_image(path)
    with path.open("rb") as file:
        return picture, hashlib.file_digest(file, "sha256").hexdigest()
