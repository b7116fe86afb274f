"""Stage 2: the transformer learns the bits that follow the transformed scales.

Bitwise cross-entropy (NSARM Eqs. 5 and 6) on labels modified by the transformed scales
(Alg. 2), with Infinity's bitwise self-correction. Bits carry no gradient, so the
transformation network and the autoencoder stay as they are.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from nsarm_cli.models.core.transformer import Condition
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.training.bits import BitPrediction
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import write_grid
from nsarm_cli.training.losses import bit_cross_entropy
from nsarm_cli.training.stage1 import check_crop, lr_of


class Stage2:
    """Trains the transformer and its condition.

    Args:
        model: with a trained autoencoder and transformation network.
        config: self-correction, resize and weights of tokens.
    """

    def __init__(self, model: NsarmModel, config: Stage2Config) -> None:
        self.module = model
        self.trained = nn.ModuleDict(
            {"transformer": model.transformer, "conditioner": model.conditioner}
        )
        self._model = model
        self._schedule = model.config.schedule
        self._bits = BitPrediction(model, config, model.config.preliminary)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the sampled scales' bits; flips are drawn per sample and step."""
        generators = batch.generators("flip", step)
        logits, labels = self._predict(batch, generators)
        figures = self._bits.figures(logits, labels, self._schedule)
        return self._bits.loss(logits, labels, self._schedule), figures

    def validate(self, batches: Iterable[Batch], pictures: Path) -> dict[str, float]:
        """Cross-entropy and accuracy per scale without flips; shows sampled pictures."""
        figures: dict[str, list[float]] = {}
        shown: list[Tensor] = []
        for batch in batches:
            logits, labels = self._predict(batch, None)
            values = self._bits.figures(logits, labels, self._schedule)
            values["loss"] = bit_cross_entropy(logits, labels).mean()
            for name, value in values.items():
                figures.setdefault(name, []).append(float(value))
            if not shown:
                shown = [batch.hr, lr_of(batch), self._sample(batch)]
        write_grid(shown, pictures)
        return {name: sum(values) / len(values) for name, values in figures.items()}

    def _predict(
        self, batch: Batch, generators: Sequence[Generator] | None
    ) -> tuple[Tensor, Tensor]:
        check_crop(self._model, batch.hr)
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            given = self._model.preliminary_residuals(lr_of(batch))
            forced = self._bits.teach(target, given, self._schedule, generators)
        condition = condition_of(self._model, len(batch.hr))
        return self._bits.predict(forced, self._schedule, condition)

    def _sample(self, batch: Batch) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(len(batch.hr))]
        return resolver_of(self._model).resolve(lr_of(batch), generators, Sampling())


def condition_of(model: NsarmModel, batch: int) -> Condition:
    """The condition of a batch without captions."""
    if isinstance(model.conditioner, ConstantConditioner):
        return model.conditioner(batch)  # type: ignore[no-any-return]
    return model.conditioner([model.conditioner.unconditional] * batch)  # type: ignore[no-any-return]


def resolver_of(model: NsarmModel) -> NsarmResolver:
    """A resolver under the condition of `condition_of`."""
    if isinstance(model.conditioner, ConstantConditioner):
        return NsarmResolver(model)
    return NsarmTextResolver(model, model.conditioner.unconditional.detach())
