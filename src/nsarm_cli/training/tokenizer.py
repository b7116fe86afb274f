"""Tokenizer stage: the autoencoder learns to survive its own bits.

The loss is reconstruction (absolute error, optionally LPIPS), commitment of the latents
to their codes, and the two entropy terms of binary spherical quantisation
(arXiv 2406.07548, Eq. 6-8).
"""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.config import TokenizerConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.perceptual import jitter
from nsarm_cli.training.templates import grids_of_crop


class TokenizerStage:
    """Trains the autoencoder of a model on crops.

    Args:
        model: its autoencoder learns; the rest only stays in the checkpoint.
        config: loss weights.
        perceptual: LPIPS, or None.
    """

    def __init__(
        self, model: NsarmModel, config: TokenizerConfig, perceptual: PerceptualDistance | None
    ) -> None:
        self.module = model
        self.trained = model.autoencoder
        self._autoencoder = model.autoencoder
        self._model_config = model.config
        self._config = config
        self._perceptual = perceptual

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct the crops through their bits."""
        config = self._config
        latents = self._autoencoder.encode(batch.hr).float()
        feature, residuals = self._quantise(latents, batch.ratio)
        picture = self._autoencoder.decoder(bsq.straight_through(latents, feature)).float()
        pixel = F.l1_loss(picture, batch.hr)
        commitment = F.mse_loss(latents, feature)
        entropies = [bsq.entropy_terms(r, config.sharpness) for r in residuals]
        sure = torch.stack([e[0] for e in entropies]).mean()
        used = torch.stack([e[1] for e in entropies]).mean()
        loss = config.pixel * pixel + config.commitment * commitment
        loss = loss + config.entropy * (sure - used)
        values = {"pixel": pixel, "commitment": commitment, "used": used}
        is_used = config.perceptual > 0 and step >= config.perceptual_from
        if self._perceptual is not None and is_used:
            values["perceptual"] = self._perceptual(*jitter(picture, batch.hr, step))
            loss = loss + config.perceptual * values["perceptual"]
        return loss, {name: value.detach() for name, value in values.items()}

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """How good reconstructions are; shows them over the originals."""
        judge = Judge(self._perceptual)
        gallery = Gallery()
        for batch in batches:
            latents = self._autoencoder.encode(batch.hr).float()
            feature, _ = self._quantise(latents, batch.ratio)
            picture = self._autoencoder.decode(feature).float()
            judge.compare(picture, batch.hr)
            gallery.show(picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    def _quantise(self, latents: Tensor, ratio: float) -> tuple[Tensor, list[Tensor]]:
        size = (latents.shape[-2], latents.shape[-1])
        pyramid = ResidualPyramid(grids_of_crop(self._model_config, ratio, size))
        residuals, codes = pyramid.decompose(latents, lambda r: bsq.quantise(r.detach()))
        return pyramid.compose(codes), residuals
