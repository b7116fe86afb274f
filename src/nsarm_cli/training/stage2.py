"""Stage 2: the transformer learns the bits that follow the transformed scales.

Bitwise cross-entropy (NSARM Eqs. 5 and 6) on labels modified by the transformed scales
(Alg. 2), with Infinity's bitwise self-correction. Bits carry no gradient, so the
transformation network and the autoencoder stay as they are.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.bits import BitPrediction
from nsarm_cli.training.captions import Conditions, Encoder
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.losses import bit_cross_entropy
from nsarm_cli.training.stage1 import check_crop, lr_of


class Stage2:
    """Trains the transformer and its condition.

    Args:
        model: with a trained autoencoder and transformation network.
        config: self-correction, resize, weights of tokens, and captions.
        encoder: of captions; None trains a model with text under its unconditional caption.
        perceptual: LPIPS, for validation, or None.
    """

    def __init__(
        self,
        model: NsarmModel,
        config: Stage2Config,
        encoder: Encoder | None = None,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        self.module = model
        self.trained = nn.ModuleDict(
            {"transformer": model.transformer, "conditioner": model.conditioner}
        )
        self._model = model
        self._schedule = model.config.schedule
        self._perceptual = perceptual
        self._bits = BitPrediction(model, config, model.config.preliminary)
        self._conditions = Conditions(model, encoder, config.caption_drop, config.prompt)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the sampled scales' bits; flips are drawn per sample and step."""
        logits, labels = self._predict(batch, step)
        figures = self._bits.figures(logits, labels, self._schedule)
        return self._bits.loss(logits, labels, self._schedule), figures

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """Cross-entropy and accuracy per scale without flips; samples pictures and shows them."""
        judge = Judge(self._perceptual)
        gallery = Gallery()
        for batch in batches:
            logits, labels = self._predict(batch, None)
            values = self._bits.figures(logits, labels, self._schedule)
            values["loss"] = bit_cross_entropy(logits, labels).mean()
            for name, value in values.items():
                judge.note(name, float(value))
            picture = self._sample(batch)
            judge.compare(picture, batch.hr)
            gallery.show(lr_of(batch), picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    def _predict(self, batch: Batch, step: int | None) -> tuple[Tensor, Tensor]:
        """Logits and labels; without a step nothing is flipped or dropped."""
        check_crop(self._model, batch.hr)
        flips, drops = chances(batch, step)
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            given = self._model.preliminary_residuals(lr_of(batch))
            forced = self._bits.teach(target, given, self._schedule, flips)
        condition = self._conditions.of(batch, drops)
        return self._bits.predict(forced, self._schedule, condition)

    def _sample(self, batch: Batch) -> Tensor:
        generators = batch.generators("sample")
        return self._conditions.resolver().resolve(lr_of(batch), generators, Sampling())


def chances(
    batch: Batch, step: int | None
) -> tuple[list[Generator] | None, list[Generator] | None]:
    """Generators of flipped bits and of dropped captions in a step, or nothing to draw from."""
    if step is None:
        return None, None
    return batch.generators("flip", step), batch.generators("drop", step)
