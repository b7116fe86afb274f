"""DIV2K at 1024: crops of its validation photographs and their degraded inputs, made once.

NSARM (arXiv 2510.00820, section 4) evaluates on 100 crops of 1024 pixels, degraded by
Real-ESRGAN's pipeline. Its own crops and draws are not published: the rule here has their
number, size and pipeline, and draws the rest from a fixed seed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nsarm_cli.degradation import RECIPES, degrade
from nsarm_cli.degradation.draws import uniform
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation.kept import write
from nsarm_cli.evaluation.photographs import Photographs, Reader
from nsarm_cli.evaluation.pictures import MANIFEST, PictureSet, find_set, pixel_digest
from nsarm_cli.imaging.files import read_image, write_image
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.runtime import window_generator

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, as Pillow has it."""


@dataclass(frozen=True)
class CropRule:
    """How a set is made of good photographs.

    Attributes:
        name: of the set, and in `--dataset`.
        photographs: all of them must be there.
        count: how many crops; photographs give one each in turn until there are enough.
        side: of a crop, in pixels; photographs with a shorter side give none.
        recipe: a name of `RECIPES`.
        seed: crop number i, from 0, draws its place and its degradation from (seed, i) alone.
    """

    name: str
    photographs: Photographs
    count: int
    side: int
    recipe: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of the folder of the crops."""
        return f"{self.name}-{self.side}"

    @property
    def settings(self) -> dict[str, Any]:
        """What every line of the manifest says of the rule, as JSON has it."""
        # What a recipe leaves out is not told: a kind of step that is new makes no other rule.
        values = {k: v for k, v in asdict(RECIPES[self.recipe]).items() if v is not None}
        settings = {"count": self.count, "side": self.side, "seed": self.seed, "recipe": values}
        return dict(json.loads(json.dumps(settings)))


DIV2K = CropRule(
    name="DIV2K",
    photographs=Photographs(
        name="DIV2K",
        folder="DIV2K_valid_HR",
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        licence="academic research only",
        names=tuple(f"{number:04}" for number in range(801, 901)),
    ),
    count=100,
    side=1024,
    recipe="realesrgan",
    seed=0,
)


def open_crops(
    rule: CropRule,
    root: Path,
    limit: int | None = None,
    *,
    on_picture: Callable[[str], None] = lambda _: None,
) -> PictureSet:
    """Find the crops below a folder, or make them there; a set once made is checked and used.

    Args:
        rule: how they are made.
        root: see `Photographs.open`; gets the folder `rule.folder` with `lr`, `gt` and a manifest
            of where every crop is from. The photographs are no longer needed then.
        limit: take the first crops only; all are made.
        on_picture: is told the name of each crop before it is made.

    Raises:
        ImageError: photographs are missing or cannot be read, the folder cannot be written, or a
            crop is not what its manifest says.
        ConfigError: the crops that are there were made by another rule.
    """
    folder = root / rule.folder
    if not (folder / MANIFEST).is_file():
        _make(rule, root, on_picture)
    lines = _check_manifest(rule, folder)
    found = find_set(folder, rule.name).first(limit)
    for item in found.items:
        for part, path in (("lr_pixels", item.lr), ("gt_pixels", item.gt)):
            if path is None or pixel_digest(read_image(path)) != lines[item.name].get(part):
                raise ImageError(
                    f"{path or item.lr}: is not the picture that was made; remove {folder} to "
                    "make the set again"
                )
    source = (
        f"{rule.name}, {rule.count} crops of {rule.side} from {rule.photographs.folder}, degraded "
        f"by {rule.recipe} with seed {rule.seed}; {rule.photographs.licence}"
    )
    return PictureSet(rule.name, found.items, source)


def _check_manifest(rule: CropRule, folder: Path) -> dict[str, dict[str, Any]]:
    """Read the manifest's lines by name of the crop."""
    path = folder / MANIFEST
    remedy = f"remove {folder} to make it again, or give it by its path to evaluate it as it is"
    try:
        lines = [dict(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        by_name = {str(line["key"]): line for line in lines}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: is not the manifest of {rule.name}; {remedy}") from error
    for line in lines:
        for key, value in rule.settings.items():
            if line.get(key) != value:
                raise ConfigError(f"{path}: was made with another {key}; {remedy}")
    if len(by_name) != rule.count:
        raise ConfigError(f"{path}: has {len(by_name)} of {rule.count} pictures; {remedy}")
    return by_name


def _make(rule: CropRule, root: Path, on_picture: Callable[[str], None]) -> None:
    """Make the set in a hidden folder, where an interrupted run goes on, and then name it."""
    work = root / f".{rule.folder}.part"
    with rule.photographs.open(root) as read:
        try:
            lines = list(_crops(rule, read, work, on_picture))
            write("".join(json.dumps(line) + "\n" for line in lines), work / MANIFEST)
            for line in lines:
                _line_file(work, line["key"]).unlink()
            work.rename(root / rule.folder)
        except OSError as error:
            raise ImageError(
                f"{root / rule.folder}: cannot be written ({error.strerror}); name a folder that "
                f"can be, with {rule.photographs.folder} in it, with --data-root"
            ) from error


def _line_file(folder: Path, key: str) -> Path:
    """Where the line of a finished crop is until all are."""
    return folder / f"{key}.json"


def _crops(
    rule: CropRule, read: Reader, folder: Path, on_picture: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Write the crops and their inputs; gives the manifest's line of each."""
    number = 0
    names = list(rule.photographs.names)
    for turn in count(1):
        usable: list[str] = []
        for name in names:
            photograph, sha256 = read(name)
            if min(photograph.size) < rule.side:
                continue
            usable.append(name)
            key = name if turn == 1 else f"{name}-{turn}"
            on_picture(key)
            origin = {
                "key": key,
                "source": f"{name}.png",
                "source_sha256": sha256,
                **rule.settings,
            }
            rng = window_generator(rule.seed, number)
            yield _finished(folder, origin) or _make_crop(photograph, origin, rule, rng, folder)
            number += 1
            if number == rule.count:
                return
        if not usable:
            raise ImageError(
                f"{rule.photographs.folder}: no photograph is {rule.side} pixels wide and high; "
                f"use those of {rule.photographs.url}"
            )
        names = usable


def _finished(folder: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """Give the line of a crop that an interrupted run finished, from the same photograph."""
    try:
        line = json.loads(_line_file(folder, origin["key"]).read_text("utf-8"))
        is_same = all(line.get(name) == value for name, value in origin.items())
        return dict(line) if is_same else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _make_crop(
    photograph: Image.Image,
    origin: dict[str, Any],
    rule: CropRule,
    rng: torch.Generator,
    folder: Path,
) -> dict[str, Any]:
    """Write one crop, its input and, after both, its line."""
    key = origin["key"]
    box = _draw_box(photograph.size, rule.side, rng)
    gt = photograph.crop(box)
    lr = _degraded(gt, rule.recipe, rng)
    for part, picture in (("lr", lr), ("gt", gt)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_image(picture, folder / part / f"{key}.png", overwrite=True)
    line = {
        **origin,
        "lr": f"lr/{key}.png",
        "gt": f"gt/{key}.png",
        "box": list(box),
        "lr_pixels": pixel_digest(lr),
        "gt_pixels": pixel_digest(gt),
    }
    write(json.dumps(line) + "\n", _line_file(folder, key))
    return line


def _draw_box(size: tuple[int, int], side: int, rng: torch.Generator) -> Box:
    left, top = (int(uniform(rng, (0, length - side + 1))) for length in size)
    return left, top, left + side, top + side


def _degraded(gt: Image.Image, recipe: str, rng: torch.Generator) -> Image.Image:
    """Degrade an RGB picture to a quarter of its sides."""
    hr = to_tensor(gt).mul(0.5).add(0.5)
    return to_image(degrade(hr[None], RECIPES[recipe], [rng])[0].mul(2).sub(1))
