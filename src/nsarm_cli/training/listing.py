"""Find training pictures: folders, picture files, lists in the base project's form, tar shards."""

import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.records import Piece, Record, captions_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_COUNT = re.compile(r"_(\d{9})$")
"""Where lists of the base project claim their number of lines."""

_log = logging.getLogger(__name__)


@dataclass
class Listing:
    """Pictures found, and what was wrong on the way.

    Attributes:
        records: the pictures, in the order of their paths.
        faults: one sentence per line of a list that cannot be used.
        claims: one sentence per list whose name claims another number of lines.
    """

    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)


def list_pictures(paths: Sequence[Path]) -> Listing:
    """List the pictures under some paths.

    Args:
        paths: picture files, `.tar` shards, `.jsonl` lists, or folders of these, searched to
            the bottom. A folder with lists stands for what they name; its other pictures are
            left out, with a warning.

    Raises:
        ConfigError: a path does not exist, a shard cannot be read, or there is no picture.
    """
    listing = Listing()
    for path in paths:
        _add_path(path, listing)
    if not listing.records:
        first = f" ({listing.faults[0]})" if listing.faults else ""
        raise ConfigError(
            f"{', '.join(str(p) for p in paths)}: no pictures found{first}; "
            f"give a folder with {', '.join(SUFFIXES)} files, .jsonl lists or .tar shards"
        )
    return listing


def list_shard(path: Path) -> Iterator[Record]:
    """The pictures of a tar file; members of the same name, as WebDataset has it, are captions.

    Raises:
        ConfigError: it is no readable tar file.
    """
    pictures: dict[str, tuple[str, Piece]] = {}
    words: dict[str, tuple[str, Piece]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name.startswith("."):
                    continue
                piece = Piece(str(path), member.offset_data, member.size)
                # WebDataset's key: everything up to the first dot of the last part.
                key = str(name.parent / name.name.partition(".")[0])
                if name.suffix.lower() in SUFFIXES:
                    pictures[member.name] = (key, piece)
                elif name.suffix.lower() in {".txt", ".json"}:
                    words[key] = (name.suffix.lower(), piece)
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"{path}: not a readable tar shard ({error}); make it again") from error
    for member_name, (key, piece) in pictures.items():
        suffix, text = words.get(key, ("", None))
        yield Record(piece, member_name, text, "json" if suffix == ".json" else "text")


def _add_path(path: Path, listing: Listing) -> None:
    if path.is_dir():
        files = sorted(files_of(path))
        lists = [file for file in files if file.suffix.lower() == ".jsonl"]
        if lists:
            before = len(listing.records)
            for file in lists:
                _add_list(file, listing)
            named = {record.picture.path for record in listing.records[before:]}
            left = [f for f in files if _is_picture(f) and str(f) not in named]
            if left:
                _log.warning(
                    "%s has lists, which do not name %d of its pictures, such as %s; these are "
                    "left out",
                    *(path, len(left), left[0].name),
                )
            return
    elif path.is_file():
        files = [path]
    else:
        raise ConfigError(f"{path}: no such file or folder; give the training pictures with --data")
    texts = {file for file in files if file.suffix.lower() == ".txt"}
    for file in files:
        if file.suffix.lower() == ".tar":
            listing.records.extend(list_shard(file))
        elif file.suffix.lower() == ".jsonl":
            _add_list(file, listing)
        elif _is_picture(file):
            text = file.with_suffix(".txt")
            has_text = text in texts or (len(files) == 1 and text.is_file())
            words = Piece(str(text)) if has_text else None
            listing.records.append(Record(Piece(str(file)), file.name, words))


def files_of(folder: Path) -> Iterator[Path]:
    """Files under a folder that are not hidden; links are followed, and each folder seen once."""
    seen = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()  # so that of several ways to a folder it is always the same that counts
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _add_list(path: Path, listing: Listing) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); check its name and rights"
        ) from error
    offset = lines = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            lines += 1
            try:
                listing.records.append(_record_of(path, line, offset))
            except (ValueError, RecursionError) as error:
                listing.faults.append(f"{path}: line {number} cannot be used ({error})")
        offset += len(line) + 1
    claimed = _COUNT.search(path.stem)
    if claimed and int(claimed[1]) != lines:
        listing.claims.append(
            f"{path}: has {lines} lines, not {int(claimed[1])} as its name says; all are used"
        )


def _record_of(path: Path, line: bytes, offset: int) -> Record:
    values = json.loads(line.decode("utf-8-sig"))
    captions_of(values)  # refuses what is no object or has captions that are no texts
    name, ratio = values.get("image_path"), values.get("h_div_w")
    if not isinstance(name, str) or not name:
        raise ValueError('it has no text "image_path"')
    if ratio is not None and not (isinstance(ratio, int | float) and 0 < ratio < float("inf")):
        raise ValueError('its "h_div_w" is not a number above 0')
    # A path of the base project is absolute; others are taken from where the list lies.
    picture = Path(os.path.normpath(path.parent / name))
    words = Piece(str(path), offset, len(line))
    return Record(Piece(str(picture)), picture.name, words, "json", ratio and float(ratio))


def _is_picture(path: Path) -> bool:
    """By its name; hidden files such as the "._" ones of macOS are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
