"""Training batches as a pure function of the step, so that a resumed run sees the same data.

Letters: b batch, h w pixels of the high-resolution crop.
"""

import dataclasses
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nsarm_cli.degradation.recipe import DegradationRecipe, degrade
from nsarm_cli.errors import ConfigError, ImageError, NsarmError
from nsarm_cli.models.core.schedule import Grid
from nsarm_cli.training.crops import cut
from nsarm_cli.training.order import Order, readable
from nsarm_cli.training.photos import Pixels
from nsarm_cli.training.records import Captions

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Crops and, when the stage asks for them, their degraded versions.

    Attributes:
        hr: "b 3 h w" in [-1, 1].
        lr: "b 3 h/scale w/scale" in [-1, 1], or None.
        ratio: of the template that the crops have the shape of, height by width.
        seeds: one number per sample, "b", int64, on the processor; whatever is drawn for a
            sample begins there, so it does not matter which samples share a batch. None
            numbers the samples.
        captions: one text per sample, or None where the stage reads none.
        faults: what was wrong with pictures that others took the place of.
    """

    hr: Tensor
    lr: Tensor | None
    ratio: float = 1.0
    seeds: Tensor | None = None
    captions: tuple[str, ...] | None = None
    faults: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; the seeds stay on the processor."""
        lr = None if self.lr is None else self.lr.to(device)
        return dataclasses.replace(self, hr=self.hr.to(device), lr=lr)

    def split(self, parts: int) -> "list[Batch]":
        """Parts of equal size, whose losses average to that of the whole."""
        size = len(self.hr) // parts
        if size * parts != len(self.hr):
            raise ValueError(f"{len(self.hr)} samples cannot be split into {parts} equal parts")
        return [self._range(i * size, (i + 1) * size) for i in range(parts)]

    def generators(self, purpose: str, step: int = 0) -> list[torch.Generator]:
        """One generator per sample, on the processor, for one purpose in one step."""
        seeds = range(len(self.hr)) if self.seeds is None else self.seeds.tolist()
        words = (step % 2**32, *purpose.encode())
        return [_generator((seed, *words)) for seed in seeds]

    def degraded(self, recipe: DegradationRecipe) -> "Batch":
        """The same batch with `lr`, made on the device where `hr` is."""
        hr = (self.hr + 1) / 2
        lr = degrade(hr, recipe, self.generators("degrade")) * 2 - 1
        return dataclasses.replace(self, lr=lr)

    def _range(self, start: int, end: int) -> "Batch":
        return dataclasses.replace(
            self,
            hr=self.hr[start:end],
            lr=None if self.lr is None else self.lr[start:end],
            seeds=None if self.seeds is None else self.seeds[start:end],
            captions=None if self.captions is None else self.captions[start:end],
        )


@dataclass(frozen=True)
class Framing:
    """How crops are taken and what goes with them.

    Attributes:
        sizes: (height, width) in pixels of the crops of each template.
        shrink: see `crops.cut`.
        framing: see `crops.cut`.
        turns: see `crops.cut`.
        recipe: how to make `lr` with the crops; None leaves it out.
        captions: whether captions are read.
        short: probability of the short caption, where there is one.
    """

    sizes: dict[float, Grid]
    shrink: float = 1.0
    framing: str = "crop"
    turns: str = "all"
    recipe: DegradationRecipe | None = None
    captions: bool = False
    short: float = 0.0

    def __post_init__(self) -> None:
        if self.shrink < 1:
            raise ConfigError(f"shrink is {self.shrink}; give a factor of at least 1")


class Batches(Dataset[Batch]):
    """Item `step` is the batch of that step: crops, flips, turns and degradations from a seed.

    Args:
        order: which pictures.
        framing: how crops are taken.
        batch: crops per step, in all processes together.
        seed: of everything random.
        length: number of steps.
        part: first crop and number of crops of each batch that are made here, where several
            processes share it; None makes all. A crop is the same whoever makes it.
    """

    def __init__(
        self,
        order: Order,
        framing: Framing,
        batch: int,
        seed: int,
        length: int,
        *,
        part: tuple[int, int] | None = None,
    ) -> None:
        self._order = order
        self._framing = framing
        self._seed = seed
        self._length = length
        first, size = part or (0, batch)
        self._part = range(first, first + size)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step, or this process's part of it."""
        framing, ratio = self._framing, self._order.ratio(step)
        crops: list[Pixels] = []
        captions: list[str] = []
        faults: list[str] = []
        for place in self._part:
            record, pixels, wrong = readable(self._order, step, place)
            rng = np.random.default_rng((self._seed, step, place))
            crop = cut(
                pixels,
                framing.sizes[ratio],
                rng,
                shrink=framing.shrink,
                framing=framing.framing,
                turns=framing.turns,
            )
            crops.append(crop)
            faults += wrong
            if framing.captions:
                try:
                    captions.append(_choose(record.captions(), framing.short, rng))
                except ImageError as error:
                    captions.append("")
                    faults.append(str(error))
        hr = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
        words = [_words((self._seed, step, place)) for place in self._part]
        batch = Batch(
            hr.contiguous(),
            None,
            ratio,
            torch.tensor(words),
            tuple(captions) if framing.captions else None,
            tuple(dict.fromkeys(faults)),
        )
        return batch if framing.recipe is None else batch.degraded(framing.recipe)


def loader(dataset: Batches, start: int, workers: int, most_faults: int = 0) -> Iterator[Batch]:
    """Batches from step `start` on, made by `workers` background processes (0: in this one).

    Args:
        dataset: makes them.
        start: first step.
        workers: processes.
        most_faults: corrupt pictures that are passed over; each is told once.

    Raises:
        ImageError: there are more corrupt pictures.
        NsarmError: what went wrong in a worker, as it was raised there.
    """
    batches = DataLoader(
        _Caught(dataset),
        batch_size=None,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        worker_init_fn=_begin_worker,
        prefetch_factor=4 if workers else None,
        # An iterator draws a seed for its workers; the run's own random numbers stay untouched.
        generator=torch.Generator().manual_seed(0),
    )
    known: dict[str, None] = {}
    for batch in batches:
        if isinstance(batch, NsarmError):
            raise batch
        for fault in batch.faults:
            if fault in known:
                continue
            known[fault] = None
            if len(known) > most_faults:
                raise ImageError(fault if most_faults == 0 else _too_many(list(known), most_faults))
            _log.warning("another picture is shown instead: %s", fault)
        yield batch


class _Caught(Dataset[Batch | NsarmError]):
    """Hands errors over as items, since a `DataLoader` wraps what workers raise in a traceback."""

    def __init__(self, dataset: Batches) -> None:
        self._dataset = dataset

    def __getitem__(self, step: int) -> Batch | NsarmError:
        try:
            return self._dataset[step]
        except NsarmError as error:
            return error


def _too_many(faults: list[str], most: int) -> str:
    return (
        f"{len(faults)} pictures or captions cannot be read, more than the {most} that corrupt "
        f"allows; the last is {faults[-1]}"
    )


def _choose(captions: Captions, short: float, rng: np.random.Generator) -> str:
    """The long caption, or with a probability the short one; whichever there is."""
    wants_short = rng.random() < short
    return (captions.short if wants_short else captions.long) or captions.long or captions.short


def _words(entropy: tuple[int, ...]) -> int:
    """A number in [0, 2**63) that stands for all of `entropy`."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def _generator(entropy: tuple[int, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(_words(entropy))


def _begin_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and job systems signal the whole process group, but it is the main process that
    # decides when workers end. SIGTERM stays: it is how a worker is ended in an emergency.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
