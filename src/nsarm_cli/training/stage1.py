"""Stage 1: the transformation network learns the first scales of the high-resolution picture.

Mean squared error against un-quantised residuals (NSARM sec. 3.2, Eq. 4), or against the latents
for a network that predicts those; the network alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.labels import preliminary_targets
from nsarm_cli.training.losses import preliminary_loss


class Stage1:
    """Trains the transformation network of a model whose autoencoder is trained.

    Args:
        model: its transformation network learns; the rest stays as it is.
        perceptual: LPIPS, for validation, or None.
    """

    def __init__(self, model: NsarmModel, perceptual: PerceptualDistance | None = None) -> None:
        self.module = model
        self.trained = model.transformation
        self._model = model
        self._pyramid = model.pyramid
        self._perceptual = perceptual

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of what the network regresses; `step` plays no part."""
        target, latents = self._encode(batch)
        return self._error(target, latents), {}

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """The loss, and how good a picture the first scales alone decode to, which is shown."""
        judge = Judge(self._perceptual)
        gallery = Gallery()
        for batch in batches:
            target, latents = self._encode(batch)
            judge.note("loss", float(self._error(target, latents)))
            codes = [bsq.quantise(r.float()) for r in self._model.transformation(latents)]
            picture = self._model.decode(self._pyramid.compose(codes))
            judge.compare(picture, batch.hr)
            gallery.show(lr_of(batch), picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    def _encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        check_crop(self._model, batch.hr)
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            return target, self._model.encode_lr(lr_of(batch))

    def _error(self, target: Tensor, latents: Tensor) -> Tensor:
        network = self._model.transformation
        residuals = preliminary_targets(target, self._pyramid, self._model.config.preliminary)
        predicted = [p.float() for p in network.learned(latents)]
        return preliminary_loss(predicted, network.wanted(target, residuals))


def check_crop(model: NsarmModel, hr: Tensor) -> None:
    """Raise a ConfigError unless crops "b 3 h w" are exactly one window of the model."""
    check_window(model.config, hr.shape[-2:])


class Windowed(Protocol):
    """A configuration of a model that works on windows."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def window(self) -> int:
        """Side of a window, in input pixels."""
        ...

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and side."""
        ...


def check_window(config: Windowed, size: Sequence[int]) -> None:
    """Raise a ConfigError unless (height, width) is exactly one window of the model."""
    side = config.window * config.scale
    if tuple(size) != (side, side):
        shown = size[0] if size[0] == size[1] else f"{size[0]} x {size[1]}"
        raise ConfigError(
            f"crop is {shown} but a window of {config.name} is {side} pixels; set crop = {side}"
        )


def lr_of(batch: Batch) -> Tensor:
    """The low-resolution side, which every stage but the tokenizer needs."""
    if batch.lr is None:
        raise ConfigError("this stage needs degraded pictures; set degradation")
    return batch.lr
