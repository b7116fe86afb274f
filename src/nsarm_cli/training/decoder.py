"""Decoder stage: adapt the decoder to the bits that the whole model samples.

Not in the paper: the tokenizer's decoder has only seen bits of real high-resolution
pictures. A small model samples worse bits, and a decoder that has seen them hides much of
the damage. Encoder, quantiser and all predictors stay, so labels and bits do not change.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.config import DecoderConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import write_grid
from nsarm_cli.training.perceptual import PerceptualDistance, jitter
from nsarm_cli.training.stage1 import check_crop, lr_of
from nsarm_cli.training.stage2 import resolver_of


class DecoderStage:
    """Trains the decoder of a model whose other parts are trained.

    Args:
        model: its decoder learns.
        config: loss weights and the temperature of the bits.
        perceptual: LPIPS, or None.
    """

    def __init__(
        self, model: NsarmModel, config: DecoderConfig, perceptual: PerceptualDistance | None
    ) -> None:
        self.module = model
        self.trained = model.autoencoder.decoder
        self._model = model
        self._config = config
        self._perceptual = perceptual
        self._resolver = resolver_of(model)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel and perceptual error of pictures decoded from sampled bits."""
        picture = self._model.autoencoder.decoder(self._feature(batch, step)).float()
        pixel = F.l1_loss(picture, batch.hr)
        values = {"pixel": pixel}
        loss = self._config.pixel * pixel
        if self._perceptual is not None:
            values["perceptual"] = self._perceptual(*jitter(picture, batch.hr, step))
            loss = loss + self._config.perceptual * values["perceptual"]
        return loss, {name: value.detach() for name, value in values.items()}

    def validate(self, batches: Iterable[Batch], pictures: Path) -> dict[str, float]:
        """PSNR and perceptual distance of sampled pictures; writes HR, LR and SR."""
        psnr: list[float] = []
        distance: list[float] = []
        shown: list[Tensor] = []
        for number, batch in enumerate(batches):
            picture = self._model.decode(self._feature(batch, -1 - number))
            error = ((picture - batch.hr) / 2).square().mean((1, 2, 3))
            psnr += (-10 * error.clamp_min(1e-10).log10()).tolist()
            if self._perceptual is not None:
                distance.append(float(self._perceptual(picture, batch.hr)))
            shown = shown or [batch.hr, lr_of(batch), picture]
        write_grid(shown, pictures)
        figures = {"psnr": sum(psnr) / len(psnr)}
        if distance:
            figures["perceptual"] = sum(distance) / len(distance)
        return figures

    def _feature(self, batch: Batch, step: int) -> Tensor:
        check_crop(self._model, batch.hr.shape[-1])
        lr = lr_of(batch)
        seeds = range(len(lr))
        generators = [
            torch.Generator().manual_seed(abs(step) * 1_000_003 + self._config.seed + i)
            for i in seeds
        ]
        sampling = Sampling(temperature=self._config.temperature)
        return self._resolver.feature(lr, generators, sampling)
