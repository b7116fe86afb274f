"""What VARSR learns from (arXiv 2501.18993): cross-entropy of tokens, and the refiner's loss.

Letters: b batch, l cells of the last scale, d latent channels, c width of the transformer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.varsr.diffusion import TRAINED_STEPS, Diffusion, refiner_loss
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.quantiser import Tokens, to_tokens
from nsarm_cli.models.varsr.refiner import RESIDUAL_SCALE

REPEATS = 4
"""Noise levels at which each cell's residual is learned in one step."""

ALL_STEPS = Diffusion.over(range(TRAINED_STEPS))


@dataclass(frozen=True)
class RefinerDraws:
    """The randomness of one step.

    Attributes:
        times: "n" trained steps, where n counts all cells of the batch `REPEATS` times.
        noise: "n d".
    """

    times: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, cells: int, channels: int, generators: Sequence[Generator]) -> "RefinerDraws":
        """Draw for so many cells of each sample, from one CPU generator per sample."""
        shape = (REPEATS, cells)
        times = [torch.randint(TRAINED_STEPS, shape, generator=g) for g in generators]
        noise = [torch.randn(*shape, channels, generator=g) for g in generators]
        return cls(torch.stack(times, 1).flatten(), torch.stack(noise, 1).flatten(0, 2))

    def to(self, device: torch.device) -> "RefinerDraws":
        """The same on another device."""
        return RefinerDraws(self.times.to(device), self.noise.to(device))


@dataclass(frozen=True)
class VarsrLosses:
    """The two losses of one batch, and how the tokens came out.

    Attributes:
        tokens: mean cross-entropy over the tokens of all scales.
        refiner: mean loss of the refiner over cells and noise levels.
        logits: "b l v" of all scales.
    """

    tokens: Tensor
    refiner: Tensor
    logits: Tensor


def varsr_losses(
    model: VarsrModel, condition: Condition, tokens: Tokens, draws: RefinerDraws
) -> VarsrLosses:
    """Compute the losses of one batch.

    The refiner learns what the model's own likeliest last scale leaves over, not what the true
    one would, since that is what it meets when sampling; no gradient goes through the choice.

    Args:
        model: in training or not; its tokenizer is not learned.
        condition: of the batch.
        tokens: of the high-resolution pictures.
        draws: timesteps and noise of the refiner, on the model's device.
    """
    transformer, schedule = model.transformer, model.config.schedule
    prepared = transformer.prepare(condition)
    rope = transformer.rope(schedule, tokens.feature.device)
    hidden = transformer.hidden(tokens.inputs, 0, schedule, rope, prepared)
    hidden = hidden[:, schedule.prefix_length :]
    logits = transformer.logits(hidden, prepared)
    labels = torch.cat(tokens.indices, dim=1)
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    cells = schedule.lengths[-1]
    chosen = logits[:, -cells:].detach().argmax(-1)
    codes = F.embedding(chosen, model.tokenizer.quantiser.codebook.weight.float())
    target = (to_tokens(tokens.last_residual) - codes) / RESIDUAL_SCALE
    conditions = model.refiner_conditions(hidden[:, -cells:], codes)
    clean = target.flatten(0, 1).repeat(REPEATS, 1)
    conditions = conditions.flatten(0, 1).repeat(REPEATS, 1)
    noised = ALL_STEPS.noised(clean, draws.times, draws.noise)
    predicted = model.refiner(noised, draws.times, conditions)
    refiner = refiner_loss(ALL_STEPS, clean, draws.times, draws.noise, predicted)
    return VarsrLosses(cross_entropy, refiner.mean(), logits)
