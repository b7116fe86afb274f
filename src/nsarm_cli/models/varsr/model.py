"""The networks of VARSR together.

Letters: b batch, h w pixels or latents, c width of the transformer, d latent channels,
l tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.attention import project
from nsarm_cli.models.core.block import Modulation
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.lean import make_lean
from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.prefix import PrefixEncoder
from nsarm_cli.models.varsr.quantiser import from_tokens, to_tokens
from nsarm_cli.models.varsr.refiner import Refiner
from nsarm_cli.models.varsr.tokenizer import Tokenizer


class VarsrModel(nn.Module):
    """Tokenizer, prefix encoder, label embedding, transformer and refiner."""

    def __init__(self, config: VarsrConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.tokenizer = Tokenizer(config.tokenizer)
        self.prefix = None if config.prefix is None else PrefixEncoder(config.prefix, width)
        self.labels = nn.Embedding(config.labels, width)
        self.transformer = NextScaleTransformer(
            config.transformer, signal=nn.Identity, modulation=Modulation, settle=_as_it_is
        )
        self.refiner = Refiner(config.refiner, config.tokenizer.channels, width)

    @property
    def pyramid(self) -> ResidualPyramid:
        """The residual pyramid of one window."""
        return self.tokenizer.quantiser.pyramid(self.config.schedule.latents)

    def enlarge(self, lr: Tensor) -> Tensor:
        """Enlarge "b 3 h w" in [-1, 1] to the size of the output, as Pillow's bicubic does."""
        size = [side * self.config.scale for side in lr.shape[-2:]]
        large = F.interpolate(lr, size, mode="bicubic", align_corners=False, antialias=True)
        return large.clamp(-1, 1)

    def prefix_tokens(self, pictures: Tensor) -> Tensor:
        """Tokens "b l c", float32, of enlarged pictures "b 3 h w" in [-1, 1]."""
        if self.prefix is None:
            raise ValueError(f"{self.config.name} sees no pictures")
        return to_tokens(self.prefix(pictures.to(self.prefix.conv_in.weight.dtype)).float())

    def condition(self, labels: Tensor, prefix: Tensor | None) -> Condition:
        """Condition on labels "b" and on tokens of a picture, if the model sees one."""
        return Condition(self.labels(labels).float(), prefix=prefix)

    def refiner_conditions(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """What the refiner sees: the last scale's hidden state and its embedded codes.

        Args:
            hidden: "b l c", the transformer's output.
            codes: "b l d" of the last scale; repeated when `hidden` has two halves.
        """
        embedded = project(self.transformer.word_embedding, codes).float()
        return self.refiner.conditions(hidden + embedded.repeat(len(hidden) // len(codes), 1, 1))

    def refined(self, feature: Tensor, residual: Tensor) -> Tensor:
        """Add the refiner's "b l d" to the sum of all codes "b d h w"."""
        return feature + from_tokens(residual, feature.shape[-2])

    def decode(self, feature: Tensor) -> Tensor:
        """Pictures "b 3 h w" in [-1, 1], float32, of summed codes."""
        return self.tokenizer.decode(feature.to(self.tokenizer.after.weight.dtype)).float()


def _as_it_is(position: Tensor) -> Tensor:
    """Rotary positions of VARSR are not rounded."""
    return position


def cast_for_inference(model: VarsrModel, dtype: torch.dtype) -> VarsrModel:
    """Store what the loop over scales multiplies by in `dtype`; the rest stays float32.

    Float32 are the head, so that no two logits are equal by rounding, the quantiser and the
    decoder, which the authors run so for tiled pictures. It may run leanly (`core.lean`).
    """
    if model.prefix is not None:
        model.prefix.to(dtype)
    model.transformer.blocks.to(dtype)
    model.transformer.word_embedding.to(dtype)
    model.refiner.to(dtype)
    make_lean(model.tokenizer.decoder)
    return model
