"""Training batches as a pure function of the step, so that a resumed run sees the same data.

Letters: b batch, h w pixels of the high-resolution crop.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nsarm_cli.degradation.pairs import make_pairs
from nsarm_cli.degradation.recipe import Degradation
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.models.core.schedule import Grid
from nsarm_cli.training.crops import cut
from nsarm_cli.training.order import Order, readable
from nsarm_cli.training.photos import Pixels
from nsarm_cli.training.records import Captions


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
        poor: "b", on the processor, true where the picture itself is one of poor quality; None
            where all are good.
        faults: what was wrong with pictures that others took the place of.
    """

    hr: Tensor
    lr: Tensor | None
    ratio: float = 1.0
    seeds: Tensor | None = None
    captions: tuple[str, ...] | None = None
    poor: Tensor | None = None
    faults: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; seeds and qualities stay on the processor."""
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

    def degraded(self, recipe: Degradation) -> "Batch":
        """The same batch with `lr`, made on the device where `hr` is, and the recipe's own `hr`."""
        unit = (self.hr + 1) / 2
        reference, lr = make_pairs(unit, recipe, self.generators("degrade"))
        # The difference, so that what the recipe leaves alone keeps its every bit.
        hr = self.hr + 2 * (reference - unit)
        return dataclasses.replace(self, hr=hr, lr=lr * 2 - 1)

    def _range(self, start: int, end: int) -> "Batch":
        return dataclasses.replace(
            self,
            hr=self.hr[start:end],
            lr=None if self.lr is None else self.lr[start:end],
            seeds=None if self.seeds is None else self.seeds[start:end],
            captions=None if self.captions is None else self.captions[start:end],
            poor=None if self.poor is None else self.poor[start:end],
        )


@dataclass(frozen=True)
class Framing:
    """How crops are taken and what goes with them.

    Attributes:
        sizes: (height, width) in pixels of the crops of each template.
        shrink: see `crops.cut`.
        framing: see `crops.cut`.
        margin: see `crops.cut`.
        turns: see `crops.cut`.
        recipe: how to make `lr` with the crops; None leaves it out.
        captions: whether captions are read.
        short: probability of the short caption, where there is one.
    """

    sizes: dict[float, Grid]
    shrink: float = 1.0
    framing: str = "crop"
    margin: float = 1.0
    turns: str = "all"
    recipe: Degradation | None = None
    captions: bool = False
    short: float = 0.0

    def __post_init__(self) -> None:
        if self.shrink < 1:
            raise ConfigError(f"shrink is {self.shrink}; give a factor of at least 1")


@dataclass(frozen=True)
class Sample:
    """One crop of a batch, before it is degraded.

    Attributes:
        crop: "h w 3".
        seed: see `Batch.seeds`.
        caption: "" where none is read.
        faults: see `Batch.faults`.
    """

    crop: Pixels
    seed: int
    caption: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Poor:
    """Pictures of poor quality that take the place of some good ones.

    Attributes:
        order: which pictures.
        framing: how crops of these are taken.
        share: probability that a place of a batch has one.
    """

    order: Order
    framing: Framing
    share: float

    def takes(self, place: tuple[int, ...]) -> bool:
        """Whether a place, with seed and step, has one of these."""
        return bool(np.random.default_rng((*place, *b"poor")).random() < self.share)


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
        poor: pictures of poor quality that are shown among the others.
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
        poor: Poor | None = None,
    ) -> None:
        self._order = order
        self._framing = framing
        self._seed = seed
        self._length = length
        self._poor = poor
        first, size = part or (0, batch)
        self._part = range(first, first + size)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step, or this process's part of it."""
        framing, poor = self._framing, self._poor
        is_poor = [poor is not None and poor.takes((self._seed, step, p)) for p in self._part]
        samples = [
            self._sample(poor.order, poor.framing, step, place)
            if poor is not None and instead
            else self._sample(self._order, framing, step, place)
            for place, instead in zip(self._part, is_poor, strict=True)
        ]
        crops = np.stack([sample.crop for sample in samples])
        hr = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        batch = Batch(
            hr.contiguous(),
            None,
            self._order.ratio(step),
            torch.tensor([sample.seed for sample in samples]),
            tuple(sample.caption for sample in samples) if framing.captions else None,
            None if poor is None else torch.tensor(is_poor),
            tuple(dict.fromkeys(fault for sample in samples for fault in sample.faults)),
        )
        return batch if framing.recipe is None else batch.degraded(framing.recipe)

    def _sample(self, order: Order, framing: Framing, step: int, place: int) -> Sample:
        record, pixels, faults = readable(order, step, place)
        rng = np.random.default_rng((self._seed, step, place))
        crop = cut(
            pixels,
            framing.sizes[order.ratio(step)],
            rng,
            shrink=framing.shrink,
            framing=framing.framing,
            margin=framing.margin,
            turns=framing.turns,
        )
        caption = ""
        if framing.captions:
            try:
                caption = _choose(record.captions(), framing.short, rng)
            except ImageError as error:
                faults = [*faults, str(error)]
        return Sample(crop, _words((self._seed, step, place)), caption, tuple(faults))


def _choose(captions: Captions, short: float, rng: np.random.Generator) -> str:
    """The long caption, or with a probability the short one; whichever there is."""
    wants_short = rng.random() < short
    return (captions.short if wants_short else captions.long) or captions.long or captions.short


def _words(entropy: tuple[int, ...]) -> int:
    """A number in [0, 2**63) that stands for all of `entropy`."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def _generator(entropy: tuple[int, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(_words(entropy))
