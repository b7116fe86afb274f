"""Which picture is shown when: a pure function of the seed, the step and the place in the batch.

So a run that stops and goes on, on as many processes as it likes, sees what an unbroken one
would have seen, and nothing but the step has to be saved.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsarm_cli.errors import ImageError
from nsarm_cli.models.nsarm.schedules import nearest_ratio
from nsarm_cli.training.photos import PhotoStore, Pixels, ratio_of
from nsarm_cli.training.records import Record

_RETRIES = 100
"""Other pictures that are tried in place of one that is corrupt."""


class Order(Protocol):
    """The pictures of a run, step by step."""

    def ratio(self, step: int) -> float:
        """Template of a step's crops, height by width."""
        ...

    def picture(self, step: int, place: int, attempt: int) -> tuple[Record, Pixels]:
        """A picture of a step; attempts above 0 give another in place of a corrupt one.

        Raises:
            ImageError: it cannot be read.
        """
        ...


class ShuffledOrder:
    """Endless epochs of indexed pictures, each in another order.

    With several templates each has its own epochs, and a step takes one template with the
    probability of its share of the pictures.

    Args:
        photos: the pictures.
        batch: pictures per step, in all processes together.
        steps: of the run.
        seed: of the order.
        ratios: templates; each picture belongs to the nearest.
    """

    def __init__(
        self,
        photos: PhotoStore,
        batch: int,
        steps: int,
        seed: int,
        ratios: Sequence[float] = (1.0,),
    ) -> None:
        self._photos = photos
        self._batch = batch
        self._seed = seed
        self._buckets = {ratios[0]: np.arange(len(photos))}
        self._turns = np.zeros(0, dtype=np.int64)
        if len(ratios) > 1:
            self._buckets = buckets(photos.records, ratios)
            shares = np.array([len(bucket) for bucket in self._buckets.values()], dtype=float)
            rng = np.random.default_rng((seed, *b"ratios"))
            self._turns = rng.choice(len(shares), size=steps, p=shares / shares.sum())
            self._before = _earlier_turns(self._turns)

    def ratio(self, step: int) -> float:
        """Template of a step's crops, height by width."""
        return list(self._buckets)[self._turns[step] if len(self._turns) else 0]

    def picture(self, step: int, place: int, attempt: int) -> tuple[Record, Pixels]:
        """A picture of a step; attempts above 0 give another in place of a corrupt one."""
        bucket = self._buckets[self.ratio(step)]
        turn = int(self._before[step]) if len(self._turns) else step
        index = bucket[self._place(turn * self._batch + place, len(bucket))]
        if attempt:
            rng = np.random.default_rng((self._seed, step, place, attempt))
            index = bucket[rng.integers(len(bucket))]
        return self._photos.records[index], self._photos[index]

    def _place(self, position: int, count: int) -> int:
        """The place within an epoch of a position in the endless sequence."""
        epoch, place = divmod(position, count)
        return int(_permutation(self._seed, epoch, count)[place])


def readable(order: Order, step: int, place: int) -> tuple[Record, Pixels, list[str]]:
    """A picture that can be read, and what was wrong with those that cannot.

    Raises:
        ImageError: hardly any picture can be read.
    """
    faults: list[str] = []
    for attempt in range(_RETRIES):
        try:
            record, pixels = order.picture(step, place, attempt)
        except ImageError as error:
            faults.append(str(error))
        else:
            return record, pixels, faults
    raise ImageError(
        f"of {_RETRIES} pictures none can be read, such as {faults[0]}; "
        "look at them all with nsarm train check-data"
    )


def buckets(records: Sequence[Record], ratios: Sequence[float]) -> dict[float, NDArray[np.int64]]:
    """Indices of the pictures of each template; those that cannot be read join the first."""
    found: dict[float, list[int]] = {ratio: [] for ratio in ratios}
    for index, record in enumerate(records):
        try:
            found[nearest(ratio_of(record), ratios)].append(index)
        except ImageError:
            found[ratios[0]].append(index)
    return {ratio: np.array(indices) for ratio, indices in found.items() if indices}


def nearest(ratio: float, ratios: Sequence[float]) -> float:
    """The nearest of the templates, by the rule of the published schedules where it is one."""
    first = nearest_ratio(ratio)
    return first if first in ratios else min(ratios, key=lambda known: abs(known - ratio))


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


def _earlier_turns(turns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each step, how many earlier steps took the same bucket."""
    before = np.zeros(len(turns), dtype=np.int64)
    for bucket in np.unique(turns):
        mine = turns == bucket
        before[mine] = np.arange(mine.sum())
    return before
