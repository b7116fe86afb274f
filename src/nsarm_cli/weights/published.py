"""The published files of a model that are on this machine, and their known digests."""

from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.weights.catalog import load_catalog
from nsarm_cli.weights.entries import FileEntry
from nsarm_cli.weights.record import VERIFIED, Record, read_record
from nsarm_cli.weights.store import Store
from nsarm_cli.weights.trust import Digest


@dataclass(frozen=True)
class PublishedFiles:
    """What there is to convert.

    Attributes:
        paths: files, parts, and folders of shards; for `find_originals`.
        known: digests by pattern of the file name; for `Trust`.
    """

    paths: tuple[Path, ...] = ()
    known: tuple[tuple[str, Digest], ...] = ()


def published_files(store: Store, model: str) -> PublishedFiles:
    """Look for a model's files in the store.

    Digests are those of the catalogue, and those that a download was checked against because
    its server states them.

    Raises:
        ConfigError: the catalogue is damaged.
    """
    entry = load_catalog().get(model)
    if entry is None or entry.ships:
        return PublishedFiles()
    record = read_record(store.downloads(model))
    paths: dict[Path, None] = {}
    known: list[tuple[str, Digest]] = []
    for file in entry.files:
        known += _digests(file, record)
        found = store.paths(entry, file)
        if file.path.suffix == ".safetensors" and file.role != "model":
            paths |= dict.fromkeys(path.parent for path in found)
        elif file.role in ("transformer", "vae"):
            paths |= dict.fromkeys(found)
    return PublishedFiles(tuple(paths), tuple(known))


def _digests(file: FileEntry, record: Record) -> list[tuple[str, Digest]]:
    """A file's digests under its name, and under that of its parts."""
    stated = dict(file.digests)
    stamp = record.files.get(str(file.path))
    if stamp is not None and stamp.verdict == VERIFIED:
        stated = {n: d for n, d in stamp.digests.items() if n in ("sha256", "md5")} | stated
    names = [file.path.name] + ([file.parts] if file.parts else [])
    return [(name, Digest(algorithm, d)) for name in names for algorithm, d in stated.items()]
