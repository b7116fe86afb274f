"""Which picture files the arguments of a run stand for."""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.formats import readable_suffixes
from nsarm_cli.imaging.metadata import is_ours
from nsarm_cli.imaging.opening import mode_of, opened, unreadable


@dataclass(frozen=True)
class Found:
    """A picture file.

    Attributes:
        path: of the file.
        folder: where it lies within the folder that was searched; "." for files given by name.
        is_named: it was given by name and not picked up from a folder or by a pattern.
    """

    path: Path
    folder: Path = Path()
    is_named: bool = True

    def is_output(self) -> bool:
        """Whether the file says that it is an output of this program; no error if unreadable."""
        try:
            with opened(self.path) as image:
                return is_ours(image)
        except ImageError:
            return False  # reading it will say why


def find_pictures(
    paths: Sequence[Path], *, recursive: bool = False, avoid: Path | None = None, hint: str = ""
) -> list[Found]:
    """List the pictures that files, folders and patterns stand for.

    Args:
        paths: files are taken as they are, whatever their ending; a folder stands for the
            files in it with an ending of `formats.readable_suffixes`, sorted by name, hidden
            ones left out; a name with * ? or [ that is no file is a pattern for such files, in
            which ** stands for any folders.
        recursive: folders stand for the pictures in their folders too; links to folders are
            not followed.
        avoid: a folder that is not searched, since outputs go there; nothing happens when it
            is itself one of `paths` or holds one of them.
        hint: what else a user may do about a folder without pictures, for the error.

    Returns:
        Files in the order given, each once.

    Raises:
        ImageError: a path is missing or neither file nor folder, or stands for no pictures.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        for file in _stands_for(path, recursive=recursive, avoid=avoid, hint=hint):
            # Not the file's own resolve(): two links to one picture have two names and
            # therefore two outputs.
            found.setdefault(file.path.parent.resolve() / file.path.name, file)
    return list(found.values())


def find_images(paths: Sequence[Path], hint: str = "") -> list[Path]:
    """List the paths of `find_pictures`."""
    return [found.path for found in find_pictures(paths, hint=hint)]


def _stands_for(path: Path, *, recursive: bool, avoid: Path | None, hint: str) -> list[Found]:
    if glob.has_magic(str(path)) and not os.path.lexists(path):
        # Shells without patterns, such as that of Windows, pass them on.
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns)
        files = [Found(match, is_named=False) for match in map(Path, matches) if _is_picture(match)]
        if not files:
            raise ImageError(f"{path}: no picture matches this pattern; check the name")
        return files
    if not stat.S_ISDIR(mode_of(path)):
        return [Found(path)]
    try:
        files = list(_pictures_in(path, recursive=recursive, avoid=avoid))
    except OSError as error:
        raise unreadable(path, error) from error
    if not files:
        endings = " ".join(readable_suffixes())
        raise ImageError(
            f"{path}: the folder holds no pictures; the known endings are {endings}"
            + (f", and {hint}" if hint else "")
        )
    return files


def _pictures_in(root: Path, *, recursive: bool, avoid: Path | None) -> Iterator[Found]:
    if not recursive:
        for file in sorted(root.iterdir()):
            if _is_picture(file):
                yield Found(file, is_named=False)
        return
    shunned = None if avoid is None else avoid.resolve()
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and (here / name).resolve() != shunned
        )
        for name in sorted(names):
            if _is_picture(here / name):
                yield Found(here / name, here.relative_to(root), is_named=False)


def _is_picture(file: Path) -> bool:
    is_hidden = file.name.startswith(".")
    return not is_hidden and file.suffix.lower() in readable_suffixes() and file.is_file()
