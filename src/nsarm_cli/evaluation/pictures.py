"""Sets of pictures: inputs with their references and captions, found in a folder and paired.

Three layouts are understood:

```
manifest.jsonl           lines {"key": ..., "lr": path, "gt": path or null, "caption": ...}
lr/ and gt/              pictures of the same names; other names for the two are known
pictures                 inputs alone
```
"""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.imaging.files import read_image
from nsarm_cli.imaging.finding import find_images
from nsarm_cli.imaging.formats import readable_suffixes

MANIFEST = "manifest.jsonl"
_LR_FOLDERS = ("lr", "test_lr", "lq", "input", "inputs", "lr128", "lr256")
_GT_FOLDERS = ("gt", "hr", "test_hr", "gt512", "gt1024", "reference")
_LAYOUTS = f"a set may also have {MANIFEST}, or folders lr and gt"
_OUTPUT_ENDINGS = ("", "_x4")  # nsarm upscale adds the second


@dataclass(frozen=True)
class Item:
    """One picture of a set.

    Attributes:
        name: without ending; the same in every method's folder.
        lr: the input.
        gt: the reference, or None.
        caption: of what it shows, or None.
    """

    name: str
    lr: Path
    gt: Path | None = None
    caption: str | None = None


@dataclass(frozen=True)
class PictureSet:
    """Pictures that are evaluated together.

    Attributes:
        name: in tables, options and folders.
        items: at least one; all with a reference, or none.
        source: where it is from, for the report.
    """

    name: str
    items: tuple[Item, ...]
    source: str

    @property
    def has_references(self) -> bool:
        """Whether outputs can be compared with references."""
        return self.items[0].gt is not None

    def first(self, count: int | None) -> "PictureSet":
        """Give the first pictures by name; all when `count` is None."""
        return replace(self, items=self.items[:count])


def find_set(folder: Path, name: str | None = None) -> PictureSet:
    """Find the pictures of a folder in one of the known layouts.

    Args:
        folder: see the head of this module.
        name: of the set; by default the folder's.

    Raises:
        ImageError: the folder is missing or empty, or inputs and references do not pair up.
        ConfigError: the manifest is damaged.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: there is no such folder of pictures; check the name")
    name = name or folder.resolve().name
    if (folder / MANIFEST).is_file():
        items = _from_manifest(folder / MANIFEST)
    else:
        subfolders = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
        lr = _first(subfolders, _LR_FOLDERS)
        gt = _first(subfolders, _GT_FOLDERS)
        if lr is None and gt is not None:
            raise ImageError(
                f"{folder}: has references in {gt.name} but no folder of inputs; "
                f"call that one of {', '.join(_LR_FOLDERS)}"
            )
        inputs = by_name(folder, _LAYOUTS) if lr is None else by_name(lr)
        items = _pair(inputs, None if gt is None else by_name(gt), lr or folder, gt)
    return PictureSet(name, tuple(sorted(items, key=lambda item: item.name)), str(folder))


def is_set_folder(folder: Path, names: Container[str]) -> bool:
    """Whether a folder has one of the known layouts; pictures alone count by their names."""
    if not folder.is_dir():
        return False
    if (folder / MANIFEST).is_file():
        return True
    return any(
        path.name.lower() in _LR_FOLDERS + _GT_FOLDERS
        if path.is_dir()
        else path.stem in names and path.suffix.lower() in readable_suffixes()
        for path in folder.iterdir()
    )


def by_name(folder: Path, hint: str = "") -> dict[str, Path]:
    """List a folder's pictures by name without ending.

    Args:
        folder: that has them.
        hint: see `find_pictures`.

    Raises:
        ImageError: the folder is missing or has no pictures, or two share a name.
    """
    found: dict[str, Path] = {}
    for path in find_images([folder], hint):
        if path.stem in found:
            raise ImageError(
                f"{path}: has the same name as {found[path.stem].name}; remove one of the two"
            )
        found[path.stem] = path
    return found


def match_outputs(picture_set: PictureSet, folder: Path) -> dict[str, Path]:
    """Find a method's output for every picture of a set.

    Args:
        picture_set: whose names the outputs have, with or without "_x4" at the end.
        folder: of the method.

    Raises:
        ImageError: outputs are missing.
    """
    files = by_name(folder)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for item in picture_set.items:
        path = next((files[item.name + e] for e in _OUTPUT_ENDINGS if item.name + e in files), None)
        if path is None:
            missing.append(item.name)
        else:
            found[item.name] = path
    if missing:
        rest = next(iter(files.keys() - {path.stem for path in found.values()}), None)
        other = "" if rest is None else f"; it has, for example, {files[rest].name}"
        raise ImageError(
            f"{folder}: lacks the outputs of {len(missing)} of the {len(picture_set.items)} "
            f"pictures of {picture_set.name}, the first is {missing[0]}{other}; add or rename "
            "them, or take fewer pictures with --limit"
        )
    return found


def as_tensor(image: Image.Image) -> Tensor:
    """Turn an RGB picture into "3 h w", uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def pixel_digest(image: Image.Image) -> str:
    """Name the pixels of an RGB picture, whatever file they are in: 32 hexadecimal digits."""
    head = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()[:32]


def with_captions(picture_set: PictureSet, captions: Mapping[str, str]) -> PictureSet:
    """Give every picture its caption.

    Raises:
        ConfigError: one has none.
    """
    lacking = [item.name for item in picture_set.items if item.name not in captions]
    if lacking:
        raise ConfigError(
            f"{picture_set.name}: {len(lacking)} pictures have no caption, the first is "
            f"{lacking[0]}; add them to the file of captions"
        )
    items = (replace(item, caption=captions[item.name]) for item in picture_set.items)
    return replace(picture_set, items=tuple(items))


def read_captions(path: Path) -> dict[str, str]:
    """Read captions by picture name from lines of JSON.

    Each line has `caption` or `long_caption`, and `key` or `image_path`, as the lists of
    NSARM's authors do.

    Raises:
        ConfigError: the file cannot be read or a line is something else.
    """
    captions: dict[str, str] = {}
    for number, line in _json_lines(path):
        text = line.get("caption", line.get("long_caption"))
        name = line.get("key") or Path(str(line.get("image_path", ""))).stem
        if not isinstance(text, str) or not isinstance(name, str) or not name:
            raise ConfigError(
                f"{path}: line {number} has no caption or no name of a picture; mend it there"
            )
        captions[name] = text
    return captions


def _is_plain_name(key: str) -> bool:
    """Whether a file of this name lies in the folder where it is put, on any system."""
    return PureWindowsPath(key).name == key and key != ".." and "\0" not in key


def _from_manifest(path: Path) -> list[Item]:
    items: list[Item] = []
    for number, line in _json_lines(path):
        key, lr, gt, caption = (line.get(name) for name in ("key", "lr", "gt", "caption"))
        texts = (key, lr)
        if not all(isinstance(t, str) and t for t in texts) or not all(
            t is None or isinstance(t, str) for t in (gt, caption)
        ):
            raise ConfigError(
                f"{path}: line {number} must have the texts key and lr, and may have gt and "
                "caption; mend it there"
            )
        if not _is_plain_name(str(key)):
            raise ConfigError(
                f"{path}: line {number} has the key {str(key)!r}, which is no file name, as "
                "outputs need it; leave out folders"
            )
        reference = None if gt is None else path.parent / str(gt)
        text = None if caption is None else str(caption)
        items.append(Item(str(key), path.parent / str(lr), reference, text))
    if not items:
        raise ConfigError(f"{path}: names no pictures; add some or remove the file")
    for item in items:
        for file in (item.lr, item.gt):
            if file is not None and not file.is_file():
                raise ImageError(f"{file}: is missing, though {path.name} names it; restore it")
    if len({item.gt is None for item in items}) > 1:
        lacking = next(item.name for item in items if item.gt is None)
        raise ImageError(
            f"{path}: {lacking} has no reference but others have; add it or remove the others'"
        )
    return items


def _json_lines(path: Path) -> Iterable[tuple[int, dict[str, object]]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); restore it") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}: line {number} is not JSON ({error})") from error
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: line {number} is not a JSON object; mend it there")
            yield number, value


def _pair(
    lr: dict[str, Path], gt: dict[str, Path] | None, lr_folder: Path, gt_folder: Path | None
) -> list[Item]:
    if gt is None:
        return [Item(name, path) for name, path in lr.items()]
    for has, lacks, folder in ((lr, gt, gt_folder), (gt, lr, lr_folder)):
        if missing := sorted(has.keys() - lacks.keys()):
            extra = sorted(lacks.keys() - has.keys())
            hint = f", and has {extra[0]} instead" if extra else ""
            raise ImageError(
                f"{folder}: lacks {len(missing)} of {len(has)} pictures, the first is "
                f"{missing[0]}{hint}; inputs and references must have the same names"
            )
    return [Item(name, path, gt[name]) for name, path in lr.items()]


def _first(folders: Mapping[str, Path], names: Iterable[str]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)


def read_pair(item: Item) -> tuple[Image.Image, Image.Image | None]:
    """Read the input and the reference of an item.

    Raises:
        ImageError: one cannot be read.
    """
    return read_image(item.lr), None if item.gt is None else read_image(item.gt)
