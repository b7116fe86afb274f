"""VARSR's training (arXiv 2501.18993): tokens of all scales, and the refiner, learn together.

Cross-entropy of the codebook indices of the high-resolution picture, and a weighted loss of the
refiner against the model's own likeliest last scale. Pictures of poor quality are learned as
they are, under their own label, so that guidance can lead away from it. The tokenizer stays as
it is.

Letters: b batch, h w pixels.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.degradation.pairs import RESIZE_MODES
from nsarm_cli.models.varsr.config import GOOD, POOR
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.data import Batch
from nsarm_cli.training.drop_path import DropPath
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.stage1 import check_window, lr_of
from nsarm_cli.training.varsr_losses import RefinerDraws, VarsrLosses, varsr_losses
from nsarm_cli.training.varsr_settings import VarsrStageConfig


class VarsrStage:
    """Trains everything but the tokenizer, which must be a trained one.

    Args:
        model: must see pictures.
        config: weight of the refiner's loss, and the share of dropped branches.
        perceptual: LPIPS, for validation, or None.
    """

    def __init__(
        self,
        model: VarsrModel,
        config: VarsrStageConfig,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        if model.prefix is None:
            raise ValueError(f"{model.config.name} sees no pictures")
        self.module = model
        self.trained = nn.ModuleDict(
            {
                "prefix": model.prefix,
                "labels": model.labels,
                "transformer": model.transformer,
                "refiner": model.refiner,
            }
        )
        self._model = model
        self._perceptual = perceptual
        self._refiner_weight = config.refiner
        self._drop_path = DropPath(model.transformer.blocks, config.drop_path)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """As the authors: matrices, kernels and tables, but not the refiner, nor what all share."""
        spared = ("refiner.", "transformer.start", "transformer.scale_embedding.")
        return parameter.ndim > 1 and not name.startswith(spared)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy plus the weighted loss of the refiner, whose draws are each sample's."""
        self._drop_path.draw(batch.generators("path", step), batch.hr.device)
        losses, figures = self._compute(batch, _enlarged_somehow(batch, self._scale))
        return losses.tokens + self._refiner_weight * losses.refiner, figures

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """Both losses and the share of right tokens per scale; enlarges pictures and shows them."""
        self._drop_path.rest()
        judge = Judge(self._perceptual)
        gallery = Gallery()
        for batch in batches:
            losses, figures = self._compute(batch, self._model.enlarge(lr_of(batch)))
            figures["loss"] = losses.tokens + self._refiner_weight * losses.refiner
            for name, value in figures.items():
                judge.note(name, float(value))
            picture = self._sample(batch)
            judge.compare(picture, batch.hr)
            gallery.show(lr_of(batch), picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    @property
    def _scale(self) -> int:
        return self._model.config.scale

    def _compute(self, batch: Batch, seen: Tensor) -> tuple[VarsrLosses, dict[str, Tensor]]:
        """Losses and figures of enlarged pictures "b 3 h w"."""
        model, schedule = self._model, self._model.config.schedule
        check_window(model.config, batch.hr.shape[-2:])
        device = batch.hr.device
        # Which entry is nearest is not decided in half precision.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            tokenizer = model.tokenizer
            tokens = tokenizer.quantiser.tokenise(tokenizer.encode(batch.hr), schedule.latents)
        draws = RefinerDraws.draw(
            schedule.lengths[-1], model.config.tokenizer.channels, batch.generators("refine")
        )
        condition = model.condition(_labels(batch), model.prefix_tokens(seen))
        losses = varsr_losses(model, condition, tokens, draws.to(device))
        likeliest = losses.logits.detach().argmax(-1)
        right = (likeliest == torch.cat(tokens.indices, dim=1)).float()
        lengths = [index.shape[1] for index in tokens.indices]
        figures = {"cross_entropy": losses.tokens.detach(), "refiner": losses.refiner.detach()}
        for k, part in enumerate(torch.split(right, lengths, dim=1)):
            figures[f"right.{k}"] = part.mean()
        return losses, figures

    def _sample(self, batch: Batch) -> Tensor:
        resolver = VarsrResolver(self._model)
        generators = batch.generators("sample")
        return resolver.resolve(lr_of(batch), generators, resolver.sampling)


def _labels(batch: Batch) -> Tensor:
    """Quality labels "b"; pictures of unknown quality are good."""
    poor = torch.zeros(len(batch.hr), dtype=torch.bool) if batch.poor is None else batch.poor
    return torch.where(poor, POOR, GOOD).to(batch.hr.device)


def _enlarged_somehow(batch: Batch, scale: int) -> Tensor:
    """Low-resolution pictures at the size of the others, each enlarged in a way of its own.

    So the model does not depend on one way of enlarging. Values are on 8-bit levels again.
    """
    enlarged = []
    for lr, generator in zip(lr_of(batch), batch.generators("enlarge"), strict=True):
        # The seed itself is a random number; drawing one would have to wait for it.
        mode = RESIZE_MODES[generator.initial_seed() % len(RESIZE_MODES)]
        enlarged.append(F.interpolate(lr[None], scale_factor=scale, mode=mode)[0])
    return ((torch.stack(enlarged).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
