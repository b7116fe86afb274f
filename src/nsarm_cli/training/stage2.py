"""Stage 2: the transformer learns the bits that follow the transformed scales.

Bitwise cross-entropy (NSARM Eqs. 5 and 6) on labels modified by the transformed scales
(Alg. 2), with Infinity's bitwise self-correction. Bits carry no gradient, so the
transformation network and the autoencoder stay as they are.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from nsarm_cli.models.core.pyramid import area, bilinear
from nsarm_cli.models.core.transformer import Condition
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import write_grid
from nsarm_cli.training.labels import TeacherForcing, draw_flips, modified_labels
from nsarm_cli.training.losses import bit_cross_entropy, token_weights
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
        self._config = config
        self._schedule = model.config.schedule
        self._first = model.config.preliminary
        self._next_input = area if config.resize == "area" else bilinear

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the sampled scales' bits; flips are drawn from seed and step."""
        generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + step)
        forced = self._teacher(batch, generator)
        logits, labels = self._predict(forced, len(batch.hr))
        lengths = self._schedule.lengths[self._first :]
        weights = token_weights(lengths, self._config.reweight).to(logits.device)
        loss = (bit_cross_entropy(logits, labels) * weights).sum(1).mean()
        return loss, self._accuracy(logits.detach(), labels)

    def validate(self, batches: Iterable[Batch], pictures: Path) -> dict[str, float]:
        """Cross-entropy and accuracy per scale without flips; shows sampled pictures."""
        figures: dict[str, list[float]] = {}
        shown: list[Tensor] = []
        for batch in batches:
            forced = self._teacher(batch, None)
            logits, labels = self._predict(forced, len(batch.hr))
            values = self._accuracy(logits, labels)
            values["loss"] = bit_cross_entropy(logits, labels).mean()
            for name, value in values.items():
                figures.setdefault(name, []).append(float(value))
            if not shown:
                shown = [batch.hr, lr_of(batch), self._sample(batch)]
        write_grid(shown, pictures)
        return {name: sum(values) / len(values) for name, values in figures.items()}

    def _teacher(self, batch: Batch, generator: Generator | None) -> TeacherForcing:
        check_crop(self._model, batch.hr.shape[-1])
        pyramid = self._model.pyramid
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            preliminary = self._model.preliminary_residuals(lr_of(batch))
            flips: list[Tensor | None] | None = None
            if generator is not None and self._config.flip > 0:
                shapes = [(*target.shape[:2], *grid) for grid in pyramid.grids[self._first :]]
                masks = draw_flips(shapes, self._config.flip, generator)
                flips = [None] * self._first + [mask.to(target.device) for mask in masks]
            return modified_labels(
                target,
                preliminary,
                pyramid,
                self._model.config.patch,
                self._next_input,
                flips=flips,
            )

    def _predict(self, forced: TeacherForcing, batch: int) -> tuple[Tensor, Tensor]:
        transformer = self._model.transformer
        prepared = transformer.prepare(condition_of(self._model, batch))
        rope = transformer.rope(self._schedule, forced.feature.device)
        hidden = transformer.hidden(forced.inputs, 0, self._schedule, rope, prepared)
        begin = self._schedule.offsets[self._first]
        logits = transformer.logits(hidden[:, begin:], prepared)
        return logits, torch.cat(forced.labels[self._first :], dim=1)

    def _accuracy(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        right = ((logits[..., 1::2] > logits[..., ::2]) == labels).float().mean(-1)
        lengths = list(self._schedule.lengths[self._first :])
        parts = torch.split(right, lengths, dim=1)
        return {f"bits.{k}": part.mean() for k, part in enumerate(parts, start=self._first)}

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
    return NsarmResolver(model, model.conditioner.unconditional.detach())
