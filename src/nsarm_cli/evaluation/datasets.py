"""The sets of pictures known by name: where they are, and whether they are the published ones."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from nsarm_cli.errors import ImageError
from nsarm_cli.evaluation.pictures import Item, PictureSet, find_set, is_set_folder, pixel_digest
from nsarm_cli.imaging.files import read_image

CAPTIONS = "captions.jsonl"
"""File of captions in the folder of a set that was fetched."""

_CATALOGUE = Path(__file__).parent / "catalogue"


@dataclass(frozen=True)
class Published:
    """One picture file as it was published.

    Attributes:
        sha256: of the file.
        pixels: `pictures.pixel_digest` of what it shows.
    """

    sha256: str
    pixels: str


@dataclass(frozen=True)
class Captions:
    """A published list of captions.

    Attributes:
        url: its address.
        sha256: of the file.
    """

    url: str
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A set of the catalogue.

    Attributes:
        name: what `--dataset` takes.
        title: for reports.
        licence: what its authors allow.
        home: where it is to be had.
        lr_url: address of an input, "{}" for its name.
        gt_url: of a reference; None for a set without.
        captions: of NSARM's authors.
        bytes: of all pictures.
        files: name -> the input and, where there is one, the reference.
    """

    name: str
    title: str
    licence: str
    home: str
    lr_url: str
    gt_url: str | None
    captions: Captions
    bytes: int
    files: dict[str, tuple[Published, Published | None]]

    def addresses(self) -> Iterator[tuple[str, str, str]]:
        """List the published files: path inside a folder of this set, address, SHA-256."""
        yield CAPTIONS, self.captions.url, self.captions.sha256
        for name, (lr, gt) in self.files.items():
            yield f"lr/{name}.png", self.lr_url.format(quote(name)), lr.sha256
            if gt is not None and self.gt_url is not None:
                yield f"gt/{name}.png", self.gt_url.format(quote(name)), gt.sha256


@cache
def datasets() -> dict[str, Dataset]:
    """Read the catalogue: sets by name."""
    with (_CATALOGUE / "datasets.toml").open("rb") as file:
        document = tomllib.load(file)
    return {
        name: Dataset(
            name=name,
            title=entry["title"],
            licence=entry["licence"],
            home=entry["home"],
            lr_url=entry["lr"],
            gt_url=entry.get("gt"),
            captions=Captions(**entry["captions"]),
            bytes=entry["bytes"],
            files=_files(_CATALOGUE / f"{name}.tsv"),
        )
        for name, entry in document.items()
    }


def find_dataset(name: str) -> Dataset | None:
    """Look a set up, whatever the case of the name; None when it is not of the catalogue."""
    return next((d for d in datasets().values() if d.name.lower() == name.lower()), None)


def find_folder(dataset: Dataset, root: Path) -> Path | None:
    """Look for a set below a folder, without reading its pictures.

    Args:
        dataset: of the catalogue.
        root: has it in a folder of its name or of the name in OSEDiff's repository, or is it.

    Returns:
        The folder of the set, complete or not; None where there is none.
    """
    names = (dataset.name, f"benchmark_{dataset.name.lower()}", f"{dataset.name}_256")
    for name in names:
        if (root / name).is_dir():
            return root / name
    return root if is_set_folder(root, dataset.files) else None


def open_dataset(dataset: Dataset, root: Path, limit: int | None = None) -> PictureSet:
    """Find a set below a folder and check that its pictures are the published ones.

    Args:
        dataset: of the catalogue.
        root: see `find_folder`.
        limit: take the first pictures only.

    Raises:
        ImageError: it is not there, pictures are missing, or one shows something else.
    """
    folder = find_folder(dataset, root) or root
    try:
        found = {item.name: item for item in find_set(folder, dataset.name).items}
    except ImageError as error:
        raise ImageError(f"{error}; {dataset.name} is to be had from {dataset.home}") from error
    if missing := [name for name in dataset.files if name not in found]:
        raise ImageError(
            f"{folder}: lacks {len(missing)} of the {len(dataset.files)} pictures of "
            f"{dataset.name}, the first is {missing[0]}; complete it from {dataset.home}, have it "
            "fetched to another --data-root, or give it by its path to evaluate what is there"
        )
    names_in_order = sorted(dataset.files)[:limit]
    items = tuple(found[name] for name in names_in_order)
    for item in items:
        _check(dataset, item)
    return PictureSet(dataset.name, items, f"{dataset.title}; {dataset.licence}")


def _check(dataset: Dataset, item: Item) -> None:
    lr, gt = dataset.files[item.name]
    if gt is not None and item.gt is None:
        raise ImageError(
            f"{item.lr}: has no reference, but {dataset.name} has; add the folder of references"
        )
    for path, published in ((item.lr, lr), (item.gt, gt)):
        if path is None or published is None:
            continue
        if pixel_digest(read_image(path)) != published.pixels:
            raise ImageError(
                f"{path}: is not the picture {item.name} of {dataset.name} as published; "
                "get it again, or give the folder by its path to evaluate it as it is"
            )


def _files(path: Path) -> dict[str, tuple[Published, Published | None]]:
    files: dict[str, tuple[Published, Published | None]] = {}
    for line in path.read_text("utf-8").splitlines():
        name, *digests = line.split("\t")
        reference = Published(*digests[2:]) if digests[2:] else None
        files[name] = (Published(*digests[:2]), reference)
    return files
