"""The order of pictures in shards from elsewhere, which cannot be counted beforehand.

A process visits one shard after the other and takes the same number of pictures from each,
whatever a shard holds: in a shuffled order, again from the start where the shard is too short.
So the place of a run in the shards follows from the step alone, and a resumed run fetches
exactly the shard it was in. Over many visits every picture is shown; shards of like size, as
is usual, are shown alike.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.listing import list_shard
from nsarm_cli.training.order import buckets
from nsarm_cli.training.patterns import shown
from nsarm_cli.training.photos import Pixels, decode
from nsarm_cli.training.records import Record
from nsarm_cli.training.spool import Spool

_TRIES = 3
"""Times that a shard is fetched anew where other workers remove it before it is read."""


@dataclass(frozen=True)
class _Shard:
    path: Path
    records: list[Record]
    buckets: dict[float, NDArray[np.int64]]


class StreamedOrder:
    """Shards in shuffled epochs; each process of a run visits shards of its own.

    Args:
        shards: URLs and commands; see `patterns.find_sources`.
        spool: brings them here.
        part: first picture and number of pictures of this process in each batch.
        per_shard: pictures taken from a shard before the next.
        batch: pictures per step, in all processes together.
        seed: of the order.
        ratios: templates; each picture belongs to the nearest.
    """

    def __init__(
        self,
        shards: Sequence[str],
        spool: Spool,
        *,
        part: tuple[int, int],
        per_shard: int,
        batch: int,
        seed: int,
        ratios: Sequence[float] = (1.0,),
    ) -> None:
        self._shards = shards
        self._spool = spool
        self._first, self._size = part
        self._processes = batch // self._size
        self._steps = max(1, per_shard // self._size)
        self._seed = seed
        self._ratios = ratios
        self._open: dict[int, _Shard] = {}
        self._bad: dict[int, str] = {}

    def ratio(self, step: int) -> float:
        """Template of a step's crops, drawn by the shapes in the shard."""
        if len(self._ratios) == 1:
            return self._ratios[0]
        try:
            shard = self._visit(self._number(step))
        except ImageError:
            return self._ratios[0]
        shares = np.array([len(bucket) for bucket in shard.buckets.values()], dtype=float)
        rng = np.random.default_rng((self._seed, step, self._first, *b"ratio"))
        return list(shard.buckets)[int(rng.choice(len(shares), p=shares / shares.sum()))]

    def picture(self, step: int, place: int, attempt: int) -> tuple[Record, Pixels]:
        """A picture of a step; attempts above 0 give another in place of a corrupt one."""
        number = self._number(step)
        try:
            shard = self._visit(number)
        except ImageError:
            if attempt == 0:
                raise
            number += attempt  # another shard in place of a bad one
            shard = self._visit(number)
        bucket = next(iter(shard.buckets.values()))
        if len(self._ratios) > 1:
            bucket = shard.buckets.get(self.ratio(step), bucket)
        rng = np.random.default_rng((self._seed, step, place, attempt))
        index = int(bucket[rng.integers(len(bucket))])
        if attempt == 0 and len(self._ratios) == 1:
            drawn = step % self._steps * self._size + place - self._first
            order = np.random.default_rng((self._seed, number, *b"visit")).permutation(len(bucket))
            index = int(order[drawn % len(bucket)])
        for _ in range(_TRIES):
            record = shard.records[index]
            try:
                return record, decode(record)
            except ImageError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
            shard = self._visit(number)  # another worker has removed it meanwhile
        raise _overtaken(self.source(number))

    def _number(self, step: int) -> int:
        """The visit that a step is part of, counted over all processes."""
        return step // self._steps * self._processes + self._first // self._size

    def source(self, visit: int) -> str:
        """The shard of a visit."""
        epoch, place = divmod(visit, len(self._shards))
        order = np.random.default_rng((self._seed, epoch, *b"shards")).permutation(
            len(self._shards)
        )
        return self._shards[int(order[place])]

    def _visit(self, number: int) -> _Shard:
        """The shard of a visit, opened; the next one of this process is fetched meanwhile."""
        if number in self._bad:
            raise ImageError(self._bad[number])
        found = self._open.get(number)
        if found is not None and self._spool.holds(found.path):
            return found
        try:
            found = self._read(self.source(number))
        except ImageError as error:
            self._bad[number] = str(error)
            raise
        self._open = {number: found}
        following = self.source(number + self._processes)
        threading.Thread(
            target=self._fetch_ahead, args=(following,), name="fetch-ahead", daemon=True
        ).start()
        return found

    def _read(self, source: str) -> _Shard:
        for _ in range(_TRIES):
            path = self._spool.get(source)
            try:
                records = list(list_shard(path))
            except ConfigError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue  # another worker has removed it meanwhile
                raise ImageError(
                    f"{shown(source)}: not a readable tar shard ({error.__cause__})"
                ) from error
            if not records:
                raise ImageError(f"{shown(source)}: has no pictures; remove it from --data")
            shapes = {self._ratios[0]: np.arange(len(records))}
            if len(self._ratios) > 1:
                shapes = buckets(records, self._ratios)
            if self._spool.holds(path):  # or else the shapes may not be those of the pictures
                return _Shard(path, records, shapes)
        raise _overtaken(source)

    def _fetch_ahead(self, source: str) -> None:
        try:
            self._spool.get(source)
        except (ImageError, ConfigError):
            return  # told when it is needed


def _overtaken(source: str) -> ImageError:
    return ImageError(
        f"{shown(source)}: was removed again and again while it was read; set per_shard higher or "
        "workers lower"
    )
