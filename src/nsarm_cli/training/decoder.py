"""Decoder stage: adapt the decoder to the bits that the whole model samples.

Not in the paper: the tokenizer's decoder has only seen bits of real high-resolution
pictures. A small model samples worse bits, and a decoder that has seen them hides much of
the damage. Encoder, quantiser and transformer stay. The transformation network may learn
beside the decoder: then the transformer draws upon scales that it has not seen, and the decoder
learns with what that gives; stage 2 may follow once more, and a short decoder stage after it.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.captions import resolver_of
from nsarm_cli.training.config import DecoderConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.discriminator import PatchDiscriminator
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.labels import preliminary_targets
from nsarm_cli.training.losses import preliminary_loss
from nsarm_cli.training.perceptual import LEAST_BLOCKS, jitter, repeated_pattern, same_square
from nsarm_cli.training.stage1 import check_crop, lr_of

DISCRIMINATOR_WIDTH = 48
"""Small: it must not cost more than the decoder that it teaches."""


class DecoderStage:
    """Trains the decoder of a model whose other parts are trained.

    Args:
        model: its decoder learns, and its transformation network if the settings say so.
        config: loss weights and the temperature of the bits.
        perceptual: LPIPS, or None.
        dists: DISTS, or None.
    """

    def __init__(
        self,
        model: NsarmModel,
        config: DecoderConfig,
        perceptual: PerceptualDistance | None,
        dists: Dists | None = None,
    ) -> None:
        _check_pattern(model, config)
        learners: dict[str, nn.Module] = {"decoder": model.autoencoder.decoder}
        kept: dict[str, nn.Module] = {"model": model}
        if config.transformation:
            learners["transformation"] = model.transformation
        self._discriminator = None
        if config.adversarial > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self._discriminator = PatchDiscriminator(DISCRIMINATOR_WIDTH)
            learners["discriminator"] = kept["discriminator"] = self._discriminator
        self.module = nn.ModuleDict(kept)
        self.trained = nn.ModuleDict(learners)
        self._model = model
        self._config = config
        self._perceptual = perceptual
        self._dists = dists
        self._resolver = resolver_of(model)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel, perceptual and adversarial error of pictures decoded from sampled bits."""
        config = self._config
        feature = self._feature(batch, step)
        values: dict[str, Tensor] = {}
        loss = feature.new_zeros(())
        if config.transformation:
            estimate, values["anchor"] = self._estimate(batch)
            feature = bsq.straight_through(estimate, feature)
            loss = loss + config.anchor * values["anchor"]
        picture = self._model.autoencoder.decoder(feature).float()
        error = self._error(picture, batch.hr, step, values)
        if self._discriminator is not None:
            values["realism"] = self._discriminator.realism(picture)
            values["discriminator"] = self._discriminator.real_or_made(batch.hr, picture)
            share = config.adversarial if step >= config.adversarial_from else 0.0
            last = self._model.autoencoder.decoder.conv_out.weight
            error = balanced(error, -values["realism"], picture, last, share)
            loss = loss + values["discriminator"]
        loss = loss + error
        return loss, {name: value.detach() for name, value in values.items()}

    def _error(self, picture: Tensor, hr: Tensor, step: int, values: dict[str, Tensor]) -> Tensor:
        """Pixel and perceptual terms, noted in `values`."""
        config = self._config
        values["pixel"] = F.l1_loss(picture, hr)
        error = config.pixel * values["pixel"]
        if self._perceptual is not None and config.perceptual > 0:
            values["perceptual"] = self._perceptual(*jitter(picture, hr, step))
            error = error + config.perceptual * values["perceptual"]
        if self._dists is not None and config.dists > 0:
            values["dists"] = self._dists(*same_square(picture, hr, config.dists_crop, step))
            error = error + config.dists * values["dists"]
        if config.pattern > 0:
            period = self._model.config.autoencoder.unshuffle
            values["pattern"] = repeated_pattern(picture, hr, period)
            error = error + config.pattern * values["pattern"]
        return error

    def _estimate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The known scales' sum before quantisation, and stage 1's loss."""
        network, pyramid = self._model.transformation, self._model.pyramid
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            latents = self._model.encode_lr(lr_of(batch))
        learned = [tensor.float() for tensor in network.learned(latents)]
        residuals = preliminary_targets(target, pyramid, self._model.config.preliminary)
        anchor = preliminary_loss(learned, network.wanted(target, residuals))
        return network.estimate(learned, pyramid), anchor

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """How good sampled pictures are; writes LR, SR and HR."""
        judge = Judge(self._perceptual, self._dists)
        gallery = Gallery()
        for number, batch in enumerate(batches):
            picture = self._model.decode(self._feature(batch, -1 - number))
            judge.compare(picture, batch.hr)
            gallery.show(lr_of(batch), picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    def _feature(self, batch: Batch, step: int) -> Tensor:
        check_crop(self._model, batch.hr)
        lr = lr_of(batch)
        generators = batch.generators("sample", step)
        sampling = Sampling(temperature=self._config.temperature)
        return self._resolver.feature(lr, generators, sampling)


def _check_pattern(model: NsarmModel, config: DecoderConfig) -> None:
    """Refuse a penalty that would be nothing, or that has too few blocks to look at."""
    period = model.config.autoencoder.unshuffle
    blocks = model.config.window * model.config.scale // period
    if config.pattern > 0 and (period < 2 or blocks < LEAST_BLOCKS):
        found = "unfolds no blocks" if period < 2 else f"has {blocks} blocks along a window"
        raise ConfigError(
            f"pattern is {config.pattern}, but the decoder of {model.config.name} {found}; "
            "set pattern = 0"
        )


def balanced(main: Tensor, other: Tensor, picture: Tensor, last: Tensor, share: float) -> Tensor:
    """Add a loss whose gradient is scaled to a share of the main one's.

    A discriminator's score changes its scale as it learns; the share keeps the two in balance.
    Gradients are compared at the last layer (arXiv 2012.09841, Eq. 7), where a push that is the
    same everywhere adds up, as it would in all layers; pixel by pixel it would look small.

    Args:
        main: scalar loss of the picture.
        other: scalar loss of the picture.
        picture: "b 3 h w".
        last: weight of the layer that made the picture.
        share: length of the other's gradient at `last`, after scaling, over that of the main.

    Returns:
        A scalar with the value of the main loss and the gradient of both.
    """
    pull, push = (torch.autograd.grad(loss, picture)[0] for loss in (main, other))
    lengths = [
        torch.autograd.grad(picture, last, gradient, retain_graph=True)[0].norm()
        for gradient in (pull, push)
    ]
    gradient = pull + push * (share * lengths[0] / lengths[1].clamp_min(1e-12))
    value: Tensor = main.detach() + ((picture - picture.detach()) * gradient).sum()
    return value
