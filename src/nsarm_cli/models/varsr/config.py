"""Configuration of a VARSR model and the named presets."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.varsr.refiner import RefinerConfig
from nsarm_cli.models.varsr.tokenizer import TokenizerConfig

GOOD, POOR = 0, 1
"""Quality labels: what the model should make, and what guidance leads away from."""


@dataclass(frozen=True)
class VarsrConfig:
    """Everything that defines a VARSR model but its weights.

    Attributes:
        name: of the preset, for messages.
        sides: of the scales in tokens, coarse to fine; a token is one latent.
        tokenizer: shape of the tokenizer.
        prefix: channels of the prefix encoder from the picture inwards, or None for a model
            that makes pictures of a class and sees no low-resolution picture.
        transformer: shape of the transformer.
        refiner: shape of the refiner.
        labels: rows of the label embedding; with a prefix they are `GOOD` and `POOR`,
            otherwise classes and, last, no class.
        position_side: side of the grid that rotary positions are on, whatever the last scale.
        scale: output pixels per input pixel and side.
        overlap: fewest input pixels that neighbouring windows share.
        sampling: defaults the weights were tuned for.
        color: default colour correction.
    """

    name: str
    sides: tuple[int, ...]
    tokenizer: TokenizerConfig
    prefix: tuple[int, ...] | None
    transformer: TransformerConfig
    refiner: RefinerConfig
    labels: int = 2
    position_side: int = 32
    scale: int = 4
    overlap: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    color: str = "adain"

    def __post_init__(self) -> None:
        wanted = (self.tokenizer.channels, self.tokenizer.codes, self.schedule.prefix_length)
        given = (self.transformer.inputs, self.transformer.outputs, self.transformer.prefix)
        if wanted != given:
            raise ValueError(
                f"{self.name}: the transformer has inputs, outputs and prefix {given}; "
                f"tokenizer and scales need {wanted}"
            )
        if self.prefix is not None and 2 ** (len(self.prefix) - 1) != self.tokenizer.stride:
            raise ValueError(f"{self.name}: prefix and latents differ in resolution")
        if self.tokenizer.stride % self.scale or self.overlap % self.pixels_per_latent:
            raise ValueError(f"{self.name}: windows do not fall on whole latents")

    @property
    def schedule(self) -> ScaleSchedule:
        """Scales of one window."""
        last = self.sides[-1]
        return ScaleSchedule(
            tuple((side, side) for side in self.sides),
            1,
            (self.position_side, self.position_side),
            None if self.prefix is None else (last, last),
        )

    @property
    def pixels_per_latent(self) -> int:
        """Input pixels that one latent covers, per side."""
        return self.tokenizer.stride // self.scale

    @property
    def window(self) -> int:
        """Side of the low-resolution window, in pixels."""
        return self.sides[-1] * self.pixels_per_latent

    family: ClassVar[str] = "varsr"
    """Of models, as a model folder names it."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VarsrConfig":
        """Undo `to_dict`.

        Raises:
            ValueError, TypeError, KeyError: the values are not a configuration.
        """
        values = dict(values)
        values["tokenizer"] = TokenizerConfig(**_tuples(values["tokenizer"]))
        values["transformer"] = TransformerConfig(**values["transformer"])
        values["refiner"] = RefinerConfig(**values["refiner"])
        values["sampling"] = Sampling(**_tuples(values["sampling"]))
        return cls(**_tuples(values))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


_SIDES = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
_SIDES_OF_CLASSES = (1, 2, 3, 4, 6, 9, 12, 16, 20, 24, 28, 32)
_TOKENIZER = TokenizerConfig(channels=32, width=160)
_REFINER = RefinerConfig(width=1024, blocks=6)


def _transformer(scales: int, prefix: int) -> TransformerConfig:
    return TransformerConfig(1536, 24, 24, 32, 4096, scales, cross=False, prefix=prefix)


VARSR = VarsrConfig(
    name="varsr",
    sides=_SIDES,
    tokenizer=_TOKENIZER,
    prefix=(32, 128, 256, 512, 1536),
    transformer=_transformer(len(_SIDES), _SIDES[-1] ** 2),
    refiner=_REFINER,
    # The likeliest token (top-k 1 in the authors' tests), led away from poor quality by 6.
    sampling=Sampling(temperature=0, top_p=1, guidance=7, refiner_steps=10),
)

VARSR_CLASSES = VarsrConfig(
    name="varsr-c2i",
    sides=_SIDES_OF_CLASSES,
    tokenizer=_TOKENIZER,
    prefix=None,
    transformer=_transformer(len(_SIDES_OF_CLASSES), 0),
    refiner=_REFINER,
    labels=3831,
    sampling=Sampling(temperature=1, top_p=0.75, guidance=5, refiner_steps=10),
)

PRESETS = {VARSR.name: VARSR, VARSR_CLASSES.name: VARSR_CLASSES}
