"""Training batches as a pure function of the step, so that a resumed run sees the same data.

Letters: b batch, h w pixels of the high-resolution crop.
"""

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nsarm_cli.degradation.recipe import DegradationRecipe, degrade
from nsarm_cli.errors import ConfigError, NsarmError
from nsarm_cli.training.photos import PhotoStore, Pixels


@dataclass(frozen=True)
class Batch:
    """Crops and, when the stage asks for them, their degraded versions.

    Attributes:
        hr: "b 3 h w" in [-1, 1].
        lr: "b 3 h/scale w/scale" in [-1, 1], or None.
        ratio: of the template that the crops have the shape of, height by width.
    """

    hr: Tensor
    lr: Tensor | None
    ratio: float = 1.0

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        lr = None if self.lr is None else self.lr.to(device)
        return Batch(self.hr.to(device), lr, self.ratio)


class CropDataset(Dataset[Batch]):
    """Item `step` is the batch of that step: crops, flips, turns and degradations from a seed.

    Args:
        photos: the pictures.
        crop: side of the square crops, in pixels; smaller pictures are enlarged to it.
        batch: crops per step.
        seed: of everything random.
        shrink: crops are taken from the picture reduced by a random factor in [1, shrink],
            which varies the sharpness and the size of things.
        recipe: how to make `lr`; None leaves it out.
        length: number of steps.
    """

    def __init__(
        self,
        photos: PhotoStore,
        crop: int,
        batch: int,
        seed: int,
        length: int,
        *,
        shrink: float = 1.0,
        recipe: DegradationRecipe | None = None,
    ) -> None:
        if shrink < 1:
            raise ConfigError(f"shrink is {shrink}; give a factor of at least 1")
        self._photos = photos
        self._crop = crop
        self._batch = batch
        self._seed = seed
        self._length = length
        self._shrink = shrink
        self._recipe = recipe

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step."""
        crops = []
        for i in range(self._batch):
            rng = np.random.default_rng((self._seed, step, i))
            crops.append(self._cut(self._photos[self._order(step * self._batch + i)], rng))
        hr = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        lr = None
        if self._recipe is not None:
            generators = [self._generator(step, i) for i in range(self._batch)]
            lr = degrade(hr, self._recipe, generators) * 2 - 1
        return Batch(hr.contiguous() * 2 - 1, lr)

    def _order(self, position: int) -> int:
        """Index of the picture at a position of an endless sequence of shuffled epochs."""
        epoch, place = divmod(position, len(self._photos))
        return int(np.random.default_rng((self._seed, epoch)).permutation(len(self._photos))[place])

    def _generator(self, step: int, i: int) -> torch.Generator:
        seed = np.random.SeedSequence((self._seed, step, i)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> 1))

    def _cut(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = pixels.shape[:2]
        shortest = min(height, width)
        most = max(1.0, min(self._shrink, shortest / self._crop))
        factor = math.exp(rng.uniform(0, math.log(most))) if shortest >= self._crop else 1.0
        side = min(shortest, round(self._crop * factor))
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        cut = pixels[top : top + side, left : left + side]
        if side != self._crop:
            size = (self._crop, self._crop)
            cut = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.LANCZOS))
        cut = np.rot90(cut, int(rng.integers(4)))
        if rng.integers(2):
            cut = cut[:, ::-1]
        return np.ascontiguousarray(cut)


def loader(dataset: CropDataset, start: int, workers: int) -> Iterator[Batch]:
    """Batches from step `start` on, made by `workers` background processes (0: in this one).

    Raises:
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
    for batch in batches:
        if isinstance(batch, NsarmError):
            raise batch
        yield batch


class _Caught(Dataset[Batch | NsarmError]):
    """Hands errors over as items, since a `DataLoader` wraps what workers raise in a traceback."""

    def __init__(self, dataset: CropDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, step: int) -> Batch | NsarmError:
        try:
            return self._dataset[step]
        except NsarmError as error:
            return error


def _begin_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and job systems signal the whole process group, but it is the main process that
    # decides when workers end. SIGTERM stays: it is how a worker is ended in an emergency.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
