"""Read all training pictures once and tell what they are, before a run depends on them."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from nsarm_cli.degradation.pairs import degrade
from nsarm_cli.degradation.recipe import Degradation
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.models.nsarm.schedules import nearest_ratio
from nsarm_cli.training.crops import cut
from nsarm_cli.training.listing import Listing, list_pictures, list_shard
from nsarm_cli.training.patterns import Sources, shown
from nsarm_cli.training.photos import Pixels, decode
from nsarm_cli.training.records import Record
from nsarm_cli.training.spool import Spool

_TOLERANCE = 0.01
"""A claimed ratio may be off by this much, as in the base project."""

_TIMED = 16
"""Crops that are made to tell how fast a worker is."""


@dataclass
class Findings:
    """What a set of pictures is.

    Attributes:
        pictures: that could be read.
        corrupt: one sentence per picture, caption or shard that could not be read, or line of a
            list that could not be used.
        claims: one sentence per list whose name claims another number of lines.
        wrong_ratios: pictures whose list claims another ratio than they have.
        small: pictures with a side below that of a crop, which training would enlarge.
        sides: (height, width) of each picture.
        templates: pictures by the nearest aspect ratio that has a schedule.
        copies: names of pictures with the same pixels, together.
        long: pictures with a long caption.
        short: pictures with a short caption.
        decoded_per_s: pictures that one process reads and decodes in a second.
        crops_per_s: crops that one process cuts and degrades in a second, reading aside.
    """

    pictures: int = 0
    corrupt: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    wrong_ratios: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
    templates: Counter[float] = field(default_factory=Counter)
    copies: list[list[str]] = field(default_factory=list)
    long: int = 0
    short: int = 0
    decoded_per_s: float = 0.0
    crops_per_s: float = 0.0


def inspect(
    sources: Sources,
    crop: int,
    recipe: Degradation | None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Findings:
    """Read every picture once.

    Args:
        sources: where they are.
        crop: side of the square crops, in pixels.
        recipe: how crops would be degraded; None for stages that need no such pictures.
        progress: called with the pictures (or shards from elsewhere) done and their number.

    Raises:
        ConfigError: there is no picture at all, or no room for shards from elsewhere.
    """
    found = Findings()
    listing = Listing() if sources.streams else list_pictures(sources.paths)
    found.corrupt += listing.faults
    found.claims += listing.claims
    records = _streamed(sources.streams, found, progress) if sources.streams else listing.records
    digests: dict[bytes, list[str]] = {}
    timed: list[Pixels] = []
    seconds = 0.0
    for number, record in enumerate(records):
        if not sources.streams:
            progress(number, len(listing.records))
        began = time.perf_counter()
        try:
            pixels = decode(record)
        except ImageError as error:
            found.corrupt.append(str(error))
            continue
        seconds += time.perf_counter() - began
        _note(record, pixels, crop, found)
        digests.setdefault(_digest(pixels), []).append(record.where())
        if len(timed) < _TIMED:
            timed.append(pixels)
    if sources.streams and not found.pictures and not found.corrupt:
        raise ConfigError(f"{shown(sources.streams[0])}: no pictures found")
    found.copies = [names for names in digests.values() if len(names) > 1]
    found.decoded_per_s = found.pictures / seconds if seconds else 0.0
    found.crops_per_s = _crops_per_second(timed, crop, recipe)
    return found


def _streamed(
    shards: Sequence[str], found: Findings, progress: Callable[[int, int], None]
) -> Iterator[Record]:
    spool = Spool()
    for number, shard in enumerate(shards):
        progress(number, len(shards))
        try:
            path = spool.get(shard)
        except ImageError as error:
            found.corrupt.append(str(error))
            continue
        try:
            yield from list_shard(path)
        except ConfigError as error:
            found.corrupt.append(f"{shown(shard)}: not a readable tar shard ({error.__cause__})")


def _note(record: Record, pixels: Pixels, crop: int, found: Findings) -> None:
    height, width = pixels.shape[:2]
    found.pictures += 1
    found.sides.append((height, width))
    found.templates[nearest_ratio(height / width)] += 1
    if min(height, width) < crop:
        found.small.append(f"{record.where()} has {width} x {height} pixels")
    if record.ratio is not None and abs(record.ratio - height / width) > _TOLERANCE:
        found.wrong_ratios.append(
            f"{record.where()} has ratio {height / width:.3f}, not {record.ratio:.3f}"
        )
    try:
        captions = record.captions()
    except ImageError as error:
        found.corrupt.append(str(error))
    else:
        found.long += bool(captions.long)
        found.short += bool(captions.short)


def _digest(pixels: Pixels) -> bytes:
    """Of size and pixels, so that a copy in another format without loss is found too."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.tobytes())
    return digest.digest()


def _crops_per_second(pictures: Sequence[Pixels], crop: int, recipe: Degradation | None) -> float:
    if not pictures:
        return 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    began = time.perf_counter()
    try:
        for number, pixels in enumerate(pictures):
            made = cut(pixels, (crop, crop), np.random.default_rng(number), shrink=2.0)
            hr = torch.from_numpy(made.copy()).permute(2, 0, 1)[None].float() / 255
            if recipe is not None:
                degrade(hr, recipe, [torch.Generator().manual_seed(number)])
    finally:
        torch.set_num_threads(threads)
    return len(pictures) / (time.perf_counter() - began)
