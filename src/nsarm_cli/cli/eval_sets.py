"""Finding the sets that `nsarm eval` is asked for, by name or path."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nsarm_cli.cli import console, eval_model
from nsarm_cli.errors import ConfigError, ImageError, WeightsError

if TYPE_CHECKING:
    from nsarm_cli.evaluation.crops import CropRule
    from nsarm_cli.evaluation.datasets import Dataset
    from nsarm_cli.evaluation.pictures import PictureSet
    from nsarm_cli.evaluation.protocol import Protocol
    from nsarm_cli.evaluation.ranks import Ranks

AUTO = "auto"
"""The protocol of the paper for known sets, the native one for folders."""


def open_set(
    name: str,
    data_root: Path | None,
    limit: int | None,
    protocol: str,
    captions: Sequence[Path] | None,
    ranks: "Ranks",
) -> "tuple[PictureSet, Protocol]":
    """Find a set, with the protocol that it is evaluated under.

    Args:
        name: of a known set, or a folder.
        data_root: has the known sets, and gets those that it lacks; by default a folder beside
            the weights.
        limit: take the first pictures only.
        protocol: of `evaluation.protocol`, or `AUTO`.
        captions: places of captions beside the set's own; None when none are needed.
        ranks: the first process fetches or makes what has to be.

    Raises:
        NsarmError: the set cannot be had or is not the published one.
    """
    from nsarm_cli.evaluation.crops import DIV2K
    from nsarm_cli.evaluation.datasets import CAPTIONS, find_dataset, find_folder, open_dataset
    from nsarm_cli.evaluation.pictures import find_set
    from nsarm_cli.evaluation.protocol import Protocol
    from nsarm_cli.weights.store import Store

    root = data_root or Store().root / "datasets"
    known = find_dataset(name)
    chosen = Protocol.NATIVE if protocol == AUTO else Protocol(protocol)
    places = [*(captions or ()), root / "captions"]
    if name.lower() == DIV2K.name.lower():
        _require(root, DIV2K.name, DIV2K.photographs.url)
        picture_set = _make_first(DIV2K, root, limit, ranks)
        chosen = Protocol.NATIVE  # the paper judges these at 1024, as they come
    elif known is not None:
        ranks.first_alone(lambda: _fetch(known, root))
        picture_set = open_dataset(known, root, limit)
        chosen = Protocol.PAPER if protocol == AUTO else chosen
        places.append((find_folder(known, root) or root) / CAPTIONS)
    else:
        picture_set = find_set(Path(name)).first(limit)
    if captions is not None:
        picture_set = eval_model.find_captions(picture_set, places)
    return picture_set, chosen


def _require(root: Path, name: str, home: str) -> None:
    if not root.is_dir():
        raise ConfigError(
            f"{root}: there are no sets of pictures there; name the folder that has {name} with "
            f"--data-root ({name} is to be had from {home})"
        )


def _fetch(dataset: "Dataset", root: Path) -> None:
    """Fetch a set that is not below a folder.

    Raises:
        ImageError: a file could not be had, or the folder cannot be written.
    """
    from nsarm_cli.evaluation.datasets import find_folder
    from nsarm_cli.weights.collection import PublishedFile, fetch_collection
    from nsarm_cli.weights.units import format_bytes

    if find_folder(dataset, root) is not None:
        return
    folder = root / dataset.name
    files = [PublishedFile(PurePosixPath(p), url, sha) for p, url, sha in dataset.addresses()]
    console.say(
        f"{dataset.name} is not in {root}: fetching {len(files)} files "
        f"({format_bytes(dataset.bytes)}; {dataset.licence}) from {dataset.home}"
    )
    try:
        with console.transfers() as watcher:
            fetch_collection(folder, files, watcher, size=dataset.bytes)
    except WeightsError as error:
        raise ImageError(
            f"{dataset.name} could not be fetched: {error}; or get it from {dataset.home} and "
            "name its folder with --data-root"
        ) from error


def _make_first(rule: "CropRule", root: Path, limit: int | None, ranks: "Ranks") -> "PictureSet":
    """Open a set of crops, which the first process makes while the others wait."""
    from nsarm_cli.evaluation.crops import open_crops

    def make() -> None:
        with console.progress_bar(rule.count) as bar:
            places = count()

            def on_picture(label: str) -> None:
                bar.begin(next(places), f"make {label}")

            open_crops(rule, root, limit, on_picture=on_picture)

    ranks.first_alone(make)
    return open_crops(rule, root, limit)
