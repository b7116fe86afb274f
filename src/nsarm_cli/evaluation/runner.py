"""The evaluation: every method on every picture of a set, measured once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.evaluation.journal import Journal, key_of
from nsarm_cli.evaluation.measures import Batch, Measure, measure
from nsarm_cli.evaluation.methods import Method
from nsarm_cli.evaluation.pictures import Item, PictureSet, as_tensor, pixel_digest, read_pair
from nsarm_cli.evaluation.protocol import Protocol, describe, input_of, judged_size, to_judge
from nsarm_cli.evaluation.ranks import Ranks

Rows = dict[str, dict[str, float | None]]
"""Picture -> measure -> value."""

OnPicture = Callable[[str], None]
"""Told of each picture before it is worked on."""


@dataclass(frozen=True)
class SetResult:
    """What was measured on one set.

    Attributes:
        picture_set: the pictures.
        protocol: that was used.
        described: the same in words, with the sizes.
        notes: method -> what it is.
        rows: method -> values.
        whole: method -> values of all pictures together (FID).
    """

    picture_set: PictureSet
    protocol: Protocol
    described: str
    notes: dict[str, str]
    rows: dict[str, Rows]
    whole: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """A picture of the set, read once for all methods, with the digests of its pixels."""

    item: Item
    lr: Image.Image
    gt: Image.Image | None
    lr_tensor: Tensor
    gt_tensor: Tensor | None
    lr_digest: str
    gt_digest: str | None

    @classmethod
    def read(cls, item: Item) -> "_Source":
        lr, gt = read_pair(item)
        return cls(
            item,
            lr,
            gt,
            as_tensor(lr)[None],
            None if gt is None else as_tensor(gt)[None],
            pixel_digest(lr),
            None if gt is None else pixel_digest(gt),
        )


@dataclass(frozen=True)
class _Judged:
    """A method's output of a picture, with the digest of its pixels."""

    source: _Source
    batch: Batch
    digest: str


def evaluate(
    picture_set: PictureSet,
    methods: Sequence[Method],
    measures: Sequence[Measure],
    protocol: Protocol,
    journal: Journal,
    *,
    batch: int = 1,
    ranks: Ranks | None = None,
    on_picture: OnPicture = lambda _: None,
) -> SetResult:
    """Measure every method's output of every picture.

    Pictures are divided among processes by whole batches, so that every value comes from the
    same arithmetic however many processes there are. Each picture is worked on under all methods
    before the next, so that what measures compute of its reference serves all of them.

    Args:
        picture_set: the pictures.
        methods: in the order of the tables; names differ.
        measures: those whose needs the set cannot meet are left out.
        protocol: what is done before and after a method.
        journal: values of earlier runs; gets the new ones.
        batch: pictures measured at once.
        ranks: this process among others.
        on_picture: told of each picture.

    Raises:
        ImageError: a picture cannot be read or has the wrong size.
    """
    ranks = ranks or Ranks()
    mine: list[tuple[str, str, dict[str, float | None]]] = []
    for index in range(0, len(picture_set.items), batch):
        if not ranks.is_mine(index // batch):
            continue
        sources = [_Source.read(item) for item in picture_set.items[index : index + batch]]
        for method in methods:
            for source in sources:
                on_picture(f"{picture_set.name}, {method.name}: {source.item.name}")
            judged = [_judge(source, method, protocol) for source in sources]
            rows_of_batch = _measure(judged, measures, journal)
            for source, row in zip(sources, rows_of_batch, strict=True):
                mine.append((method.name, source.item.name, row))
    first = picture_set.items[0]
    lr, gt = read_pair(first)
    described = describe(protocol, lr.size, None if gt is None else gt.size)
    found = {(m, name): row for part in ranks.gather(mine) for m, name, row in part}
    rows = {
        method.name: {item.name: found[method.name, item.name] for item in picture_set.items}
        for method in methods
    }
    notes = {method.name: method.note for method in methods}
    return SetResult(picture_set, protocol, described, notes, rows)


def judged_picture(
    item: Item, method: Method, protocol: Protocol, lr: Image.Image, gt: Image.Image | None
) -> Image.Image:
    """Give a method's output of an item, whose pictures were read, as it is judged.

    Raises:
        ImageError: the output cannot be read or has the wrong size.
    """
    gt_size = None if gt is None else gt.size
    given = input_of(lr, gt_size, protocol, str(item.lr))
    size = judged_size(lr.size, gt_size, protocol)
    return to_judge(method.output(item, given), size, protocol, f"{method.name}/{item.name}")


def _judge(source: _Source, method: Method, protocol: Protocol) -> _Judged:
    sr = judged_picture(source.item, method, protocol, source.lr, source.gt)
    batch = Batch(as_tensor(sr)[None], source.gt_tensor, source.lr_tensor)
    return _Judged(source, batch, pixel_digest(sr))


def _measure(
    judged: Sequence[_Judged], measures: Sequence[Measure], journal: Journal
) -> list[dict[str, float | None]]:
    """Measure pictures, those of one size at once, but for what the journal has."""
    rows: list[dict[str, float | None]] = [{} for _ in judged]
    for entry in measures:
        if "gt" in entry.needs and judged[0].source.gt is None:
            continue
        keys = [key_of(entry, j.digest, j.source.gt_digest, j.source.lr_digest) for j in judged]
        # All of the batch or none, so that the arithmetic does not depend on what is known.
        if not all(key in journal for key in keys):
            for same in _by_size(judged):
                values = measure(_stack([judged[i].batch for i in same]), [entry])
                journal.add({keys[i]: row[entry.name] for i, row in zip(same, values, strict=True)})
        for row, key in zip(rows, keys, strict=True):
            row[entry.name] = journal[key]
    return rows


def _by_size(judged: Sequence[_Judged]) -> list[list[int]]:
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for index, j in enumerate(judged):
        lr = j.batch.lr
        sizes = (j.batch.sr.shape, j.batch.sr.shape if lr is None else lr.shape)
        groups.setdefault(sizes, []).append(index)
    return list(groups.values())


def _stack(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:  # as it is, so that a measure knows the reference again
        return batches[0]
    gts = [b.gt for b in batches if b.gt is not None]
    lrs = [b.lr for b in batches if b.lr is not None]
    return Batch(
        torch.cat([b.sr for b in batches]),
        torch.cat(gts) if gts else None,
        torch.cat(lrs) if lrs else None,
    )
