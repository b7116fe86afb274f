"""Stage 1: the transformation network learns the first scales of the high-resolution picture.

Mean squared error against un-quantised residuals (NSARM sec. 3.2, Eq. 4); the network alone.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import write_grid
from nsarm_cli.training.labels import preliminary_targets
from nsarm_cli.training.losses import preliminary_loss


class Stage1:
    """Trains the transformation network of a model whose autoencoder is trained.

    Args:
        model: its transformation network learns; the rest stays as it is.
    """

    def __init__(self, model: NsarmModel) -> None:
        self.module = model
        self.trained = model.transformation
        self._model = model
        self._pyramid = model.pyramid

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the residuals; `step` plays no part."""
        predicted, targets = self._both(batch)
        loss = preliminary_loss(predicted, targets)
        return loss, {"bits": _agreement(predicted, targets)}

    def validate(self, batches: Iterable[Batch], pictures: Path) -> dict[str, float]:
        """The loss and the share of right bits; shows what the first scales alone decode to."""
        losses: list[float] = []
        bits: list[float] = []
        shown: list[Tensor] = []
        for batch in batches:
            predicted, targets = self._both(batch)
            losses.append(float(preliminary_loss(predicted, targets)))
            bits.append(float(_agreement(predicted, targets)))
            feature = self._pyramid.compose([bsq.quantise(p) for p in predicted])
            shown += [lr_of(batch), self._model.decode(feature), batch.hr]
        write_grid([shown[2], *shown[:2]], pictures)
        return {"loss": sum(losses) / len(losses), "bits": sum(bits) / len(bits)}

    def _both(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        check_crop(self._model, batch.hr.shape[-1])
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            latents = self._model.encode_lr(lr_of(batch))
        targets = preliminary_targets(target, self._pyramid, self._model.config.preliminary)
        return [r.float() for r in self._model.transformation(latents)], targets


def check_crop(model: NsarmModel, crop: int) -> None:
    """Raise a ConfigError unless crops of a side are exactly one window of the model."""
    side = model.config.window * model.config.scale
    if crop != side:
        raise ConfigError(
            f"crop is {crop} but a window of {model.config.name} is {side} pixels; "
            f"set crop = {side}"
        )


def lr_of(batch: Batch) -> Tensor:
    """The low-resolution side, which every stage but the tokenizer needs."""
    if batch.lr is None:
        raise ConfigError("this stage needs degraded pictures; set degradation")
    return batch.lr


def _agreement(predicted: list[Tensor], targets: list[Tensor]) -> Tensor:
    right = [
        ((p > 0) == (t > 0)).float().flatten() for p, t in zip(predicted, targets, strict=True)
    ]
    return torch.cat(right).mean()
