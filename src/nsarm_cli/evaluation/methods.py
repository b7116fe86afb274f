"""Where outputs come from: a folder that somebody filled, bicubic enlargement, or our model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from PIL import Image

from nsarm_cli.errors import ConfigError
from nsarm_cli.evaluation import kept, protocol
from nsarm_cli.evaluation.pictures import Item, PictureSet, match_outputs
from nsarm_cli.imaging.files import read_image

SETTINGS = "settings.json"


class Method(Interface):
    """Something that makes an output of every input.

    Attributes:
        name: in tables.
        note: what it is, for the report.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def note(self) -> str: ...  # noqa: D102

    def output(self, item: Item, given: Image.Image) -> Image.Image:
        """Give the output of an item.

        Args:
            item: of the set.
            given: what `protocol.input_of` made of its input.
        """
        ...


@dataclass(frozen=True)
class FolderMethod:
    """Outputs that lie in a folder.

    Attributes:
        name: in tables.
        note: what it is.
        files: by name of the picture.
    """

    name: str
    note: str
    files: Mapping[str, Path]

    @classmethod
    def find(cls, name: str, folder: Path, picture_set: PictureSet) -> "FolderMethod":
        """Match a folder with a set; its subfolder of the set's name is taken where there is one.

        Raises:
            ImageError: outputs are missing.
        """
        inside = folder / picture_set.name
        folder = inside if inside.is_dir() else folder
        return cls(name, f"outputs in {folder}", match_outputs(picture_set, folder))

    def output(self, item: Item, given: Image.Image) -> Image.Image:
        """Read the output."""
        return read_image(self.files[item.name])


@dataclass(frozen=True)
class BicubicMethod:
    """Pillow's bicubic enlargement.

    Attributes:
        name: in tables.
        note: what it is.
    """

    name: str = "bicubic"
    note: str = "Pillow's bicubic enlargement"

    def output(self, item: Item, given: Image.Image) -> Image.Image:
        """Enlarge four times."""
        return protocol.bicubic(given)


@dataclass(frozen=True)
class ModelMethod:
    """A model that runs here; its outputs are kept, so that a run can go on.

    An output is taken again only for the very input that it was made from.

    Attributes:
        name: in tables.
        note: what it is.
        folder: of the outputs of one set.
        enlarge: runs the model on an input, given the item's caption.
    """

    name: str
    note: str
    folder: Path
    enlarge: Callable[[Image.Image, Item], Image.Image]

    def output(self, item: Item, given: Image.Image) -> Image.Image:
        """Read the output that an earlier run made from this input, or make it."""
        path, origin = self.folder / f"{item.name}.png", kept.origin_of(given)
        if kept.is_kept(path, origin):
            return read_image(path)
        picture = self.enlarge(given, item)
        kept.keep(picture, path, origin)
        return picture


def prepare(folder: Path, settings: Mapping[str, object], *, overwrite: bool) -> None:
    """Make the folder of a model's outputs, or check that those in it were made alike.

    Args:
        folder: of one method and set.
        settings: all that the outputs depend on.
        overwrite: remove outputs that were made otherwise.

    Raises:
        ConfigError: there are outputs of other settings.
        ImageError: the folder cannot be written.
    """
    path = folder / SETTINGS
    before = _read(path)
    if before == settings:
        return
    made = sorted(folder.glob("*.png"))
    if made and not overwrite:
        keys = sorted(before.keys() | settings.keys())
        changed = [key for key in keys if before.get(key) != settings.get(key)]
        raise ConfigError(
            f"{folder}: holds outputs that were made with another {', '.join(changed)}; choose "
            "another folder with -o, or pass --overwrite to make them again"
        )
    for file in made:
        kept.remove(file)
    kept.write(json.dumps(settings, indent=1, sort_keys=True), path)


def _read(path: Path) -> dict[str, object]:
    """Read settings; what is missing or damaged says nothing, as if all had been otherwise."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); remove it") from error
    return found if isinstance(found, dict) else {}
