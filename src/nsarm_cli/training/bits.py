"""What both stages of the transformer share: labels of all scales in one pass, and their loss.

Letters: b batch, d latent channels, h w latents, l tokens, n bits per token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.pyramid import ResidualPyramid, area, bilinear
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.config import BitsConfig
from nsarm_cli.training.labels import TeacherForcing, draw_flips, modified_labels
from nsarm_cli.training.losses import bit_cross_entropy, token_weights


class BitPrediction:
    """Teacher forcing of a model's transformer on the scales from `first` on.

    Args:
        model: its transformer predicts.
        config: self-correction, resize and weights of tokens.
        first: number of the first scale whose bits are predicted; those before are given.

    Raises:
        ConfigError: flips are asked for in a scale that the model does not have, or only in the
            last, whose bits are the input of none.
    """

    def __init__(self, model: NsarmModel, config: BitsConfig, first: int) -> None:
        self._model = model
        self._config = config
        self._first = first
        scales = len(model.config.schedule)
        if any(scale >= scales for scale in config.flip_scales):
            raise ConfigError(
                f"flip_scales is {list(config.flip_scales)}, but the model has scales 0 to "
                f"{scales - 1}; give some of these, or an empty list for all that it predicts"
            )
        if config.flip > 0 and set(config.flip_scales) == {scales - 1}:
            raise ConfigError(
                f"flip_scales is {list(config.flip_scales)}, the last scale of the model, whose "
                "bits no other scale sees; name a scale before it, or set flip = 0"
            )
        self._flipped = config.flip_scales or range(first, scales)
        self._next_input = area if config.resize == "area" else bilinear

    def teach(
        self,
        target: Tensor,
        given: list[Tensor],
        schedule: ScaleSchedule,
        generators: Sequence[torch.Generator] | None,
    ) -> TeacherForcing:
        """Inputs and labels of all scales (Alg. 2).

        Args:
            target: "b d h w" latents of the high-resolution picture.
            given: residuals "b d s s" of the scales before `first`.
            schedule: whose last grid is h w.
            generators: of the flips, one per sample; None flips nothing.
        """
        pyramid = ResidualPyramid(schedule.latents)
        flips: list[Tensor | None] | None = None
        if generators is not None and self._config.flip > 0:
            flips = [None] * len(schedule)
            chosen = [k for k in range(len(schedule)) if k in self._flipped]
            shapes = [(target.shape[1], *pyramid.grids[k]) for k in chosen]
            masks = draw_flips(shapes, self._config.flip, generators)
            for k, mask in zip(chosen, masks, strict=True):
                flips[k] = mask.to(target.device)
        patch = self._model.config.patch
        return modified_labels(target, given, pyramid, patch, self._next_input, flips=flips)

    def predict(
        self, forced: TeacherForcing, schedule: ScaleSchedule, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """Logits "b l (n 2)" and labels "b l n" of the predicted scales."""
        transformer = self._model.transformer
        prepared = transformer.prepare(condition)
        rope = transformer.rope(schedule, forced.feature.device)
        hidden = transformer.hidden(forced.inputs, 0, schedule, rope, prepared)
        begin = schedule.offsets[self._first]
        logits = transformer.logits(hidden[:, begin:], prepared)
        return logits, torch.cat(forced.labels[self._first :], dim=1)

    def loss(self, logits: Tensor, labels: Tensor, schedule: ScaleSchedule) -> Tensor:
        """Cross-entropy per bit (Eqs. 5 and 6), tokens weighed as the settings say."""
        weights = token_weights(schedule.lengths[self._first :], self._config.reweight)
        return (bit_cross_entropy(logits, labels) * weights.to(logits.device)).sum(1).mean()

    def figures(self, logits: Tensor, labels: Tensor, schedule: ScaleSchedule) -> dict[str, Tensor]:
        """Share of right bits per scale, as "bits.k"."""
        logits = logits.detach()
        right = ((logits[..., 1::2] > logits[..., ::2]) == labels).float().mean(-1)
        parts = torch.split(right, list(schedule.lengths[self._first :]), dim=1)
        return {f"bits.{k}": part.mean() for k, part in enumerate(parts, start=self._first)}
