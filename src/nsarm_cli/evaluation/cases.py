"""The pictures that the report shows: the worst of each method, and where ours leads most."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from nsarm_cli.evaluation.methods import Method
from nsarm_cli.evaluation.pictures import Item, read_pair
from nsarm_cli.evaluation.results import SetReport
from nsarm_cli.evaluation.runner import judged_picture

QUALITY = 90
"""Of the WebP pictures in the report; values are of the pictures themselves."""

LR, GT = "LR", "reference"


@dataclass(frozen=True)
class Group:
    """Pictures that are shown for one reason.

    Attributes:
        title: the reason.
        method: whose output stands for the picture.
        names: of the pictures, each with a short remark.
    """

    title: str
    method: str
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """One picture under every method.

    Attributes:
        name: of the picture.
        size: (width, height) at which it is judged, in pixels.
        pictures: "LR", the methods and, where there is one, "reference" -> data URI.
    """

    name: str
    size: tuple[int, int]
    pictures: dict[str, str]


@dataclass(frozen=True)
class Cases:
    """What is shown of one set.

    Attributes:
        groups: the reasons, with the names of pictures.
        pictures: every picture of the groups once.
    """

    groups: list[Group]
    pictures: list[Case]


def choose(entry: SetReport, most: int) -> list[Group]:
    """Choose pictures: one of each method's worst and of the gains in turn, until there are enough.

    Args:
        entry: the set.
        most: how many different pictures.

    Returns:
        The groups with what was chosen of them; the first of the set where nothing is ranked.
    """
    found = entry.robustness
    if found is None:
        first = tuple((item.name, "") for item in entry.result.picture_set.items[:most])
        return [Group("The first of the set", entry.ours, first)] if first else []
    # The paper's Figs. B.7 to B.9 show the gains; the score beside each name is the method's own.
    groups = [
        Group(
            f"Worst of {method}",
            method,
            tuple(zip(spread.worst, (f"{v:.3f}" for v in spread.curve[::-1]), strict=False)),
        )
        for method, spread in found.methods.items()
    ]
    if entry.gains:
        leads = tuple((name, f"+{lead:.3f}") for name, lead in entry.gains)
        groups.insert(0, Group(f"{entry.ours} leads the best other most", entry.ours, leads))
    chosen: set[str] = set()
    for turn in range(max(len(group.names) for group in groups)):
        for group in groups:
            if turn < len(group.names) and len(chosen) < most:
                chosen.add(group.names[turn][0])
    kept = (
        Group(g.title, g.method, tuple(pair for pair in g.names if pair[0] in chosen))
        for g in groups
    )
    return [group for group in kept if group.names]


def collect(entry: SetReport, methods: Sequence[Method], most: int) -> Cases:
    """Read the pictures of the cases.

    Raises:
        ImageError: an output has gone or changed its size.
    """
    items = {item.name: item for item in entry.result.picture_set.items}
    groups = choose(entry, most)
    names = dict.fromkeys(name for group in groups for name, _ in group.names)
    return Cases(groups, [_case(items[name], entry, methods) for name in names])


def _case(item: Item, entry: SetReport, methods: Sequence[Method]) -> Case:
    lr, gt = read_pair(item)
    pictures = {LR: data_uri(lr)}
    size = (0, 0)
    for method in methods:
        sr = judged_picture(item, method, entry.result.protocol, lr, gt)
        size = sr.size
        pictures[method.name] = data_uri(sr)
    if gt is not None:
        pictures[GT] = data_uri(gt)
    return Case(item.name, size, pictures)


def data_uri(picture: Image.Image) -> str:
    """Turn a picture into text that a page can hold."""
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
