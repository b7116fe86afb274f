"""Files of an evaluation: written whole, and pictures with a record of what they were made from.

The record lies beside the picture, as `NAME.png.json`. It goes before the picture is replaced and
comes back after it, so that a run killed between the two leaves a picture without a record, which
counts as not there.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from nsarm_cli.evaluation.pictures import pixel_digest
from nsarm_cli.imaging.atomic import unwritable, whole_file
from nsarm_cli.imaging.files import write_image

Origin = Mapping[str, object]
"""What a picture was made from, in values that JSON has."""


def origin_of(given: Image.Image) -> dict[str, object]:
    """Name an RGB picture that something is made from, whatever file it is in."""
    return {"size": list(given.size), "pixels": pixel_digest(given)}


def is_kept(path: Path, origin: Origin) -> bool:
    """Whether a picture is there and was made from just this."""
    try:
        recorded = json.loads(_record(path).read_text("utf-8"))
    except (OSError, ValueError):  # none, or a damaged one
        return False
    return bool(recorded == origin) and path.is_file()


def keep(picture: Image.Image, path: Path, origin: Origin) -> None:
    """Write a picture with its record; an earlier one is replaced.

    Raises:
        ImageError: it cannot be written.
    """
    _remove(_record(path))
    write_image(picture, path, overwrite=True)
    write(json.dumps(origin), _record(path))


def remove(path: Path) -> None:
    """Remove a picture and its record, where they are.

    Raises:
        ImageError: they cannot be removed.
    """
    _remove(_record(path))
    _remove(path)


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing.

    Raises:
        ImageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def write(content: str | bytes, path: Path) -> None:
    """Write a file so that it is whole or as it was before; its folder is made if it is missing.

    Raises:
        ImageError: it cannot be written.
    """
    make_folder(path.parent)
    with whole_file(path, overwrite=True) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
