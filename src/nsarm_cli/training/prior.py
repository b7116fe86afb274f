"""Prior stage: the transformer learns what pictures look like, before it sees degraded ones.

The pre-training that NSARM takes over from Infinity (arXiv 2412.04431): bitwise
cross-entropy on the plain labels of all scales (NSARM Alg. 1), with bitwise self-correction.
Nothing is known beforehand, so pictures of several aspect ratios can be learned.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.generate import generate
from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.nsarm.codec import BitCodec
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.bits import BitPrediction
from nsarm_cli.training.captions import Conditions, Encoder
from nsarm_cli.training.config import PriorConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.judge import Judge
from nsarm_cli.training.losses import bit_cross_entropy
from nsarm_cli.training.stage2 import chances
from nsarm_cli.training.templates import crop_size, template


class Prior:
    """Trains the transformer and its condition on high-resolution pictures alone.

    Args:
        model: with a trained autoencoder.
        config: self-correction, resize, weights of tokens, and captions.
        encoder: of captions; None trains a model with text under its unconditional caption.
    """

    def __init__(
        self, model: NsarmModel, config: PriorConfig, encoder: Encoder | None = None
    ) -> None:
        self.module = model
        self.trained = nn.ModuleDict(
            {"transformer": model.transformer, "conditioner": model.conditioner}
        )
        self._model = model
        self._bits = BitPrediction(model, config, 0)
        self._conditions = Conditions(model, encoder, config.caption_drop, config.prompt)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of all scales' bits; flips are drawn per sample and step."""
        logits, labels, schedule = self._predict(batch, step)
        figures = self._bits.figures(logits, labels, schedule)
        return self._bits.loss(logits, labels, schedule), figures

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """Cross-entropy and accuracy per scale without flips; shows pictures drawn from nothing."""
        judge = Judge(None)
        gallery = Gallery()
        for batch in batches:
            logits, labels, schedule = self._predict(batch, None)
            values = self._bits.figures(logits, labels, schedule)
            values["loss"] = bit_cross_entropy(logits, labels).mean()
            for name, value in values.items():
                judge.note(name, float(value))
            picture = self._sample(batch, schedule)
            judge.look(picture)
            gallery.show(picture, batch.hr)
        gallery.write(pictures)
        return judge.figures()

    def _predict(self, batch: Batch, step: int | None) -> tuple[Tensor, Tensor, ScaleSchedule]:
        """Logits, labels and scales; without a step nothing is flipped or dropped."""
        config = self._model.config
        window = crop_size(config, batch.ratio, config.window * config.scale)
        if tuple(batch.hr.shape[-2:]) != window:
            raise ConfigError(
                f"a crop is {batch.hr.shape[-2]} x {batch.hr.shape[-1]} but a picture of ratio "
                f"{batch.ratio:g} of {config.name} is {window[0]} x {window[1]} pixels; "
                f"set crop = {config.window * config.scale}"
            )
        schedule = template(config, batch.ratio)
        flips, drops = chances(batch, step)
        with torch.no_grad():
            target = self._model.autoencoder.encode(batch.hr).float()
            forced = self._bits.teach(target, [], schedule, flips)
        condition = self._conditions.of(batch, drops)
        return *self._bits.predict(forced, schedule, condition), schedule

    @torch.no_grad()
    def _sample(self, batch: Batch, schedule: ScaleSchedule) -> Tensor:
        config, transformer = self._model.config, self._model.transformer
        device = transformer.start.device
        generated = generate(
            transformer,
            schedule,
            ResidualPyramid(schedule.latents),
            BitCodec(config.autoencoder.channels, config.patch),
            known=[],
            condition=transformer.prepare(self._conditions.of(batch, None)),
            rope=transformer.rope(schedule, device),
            generators=batch.generators("sample"),
            sampling=config.sampling,
        )
        return self._model.decode(generated.feature)
