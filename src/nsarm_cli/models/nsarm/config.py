"""Configuration of an NSARM model and the named presets."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.schedules import schedule_for
from nsarm_cli.models.nsarm.transformation import (
    AnyTransformationConfig,
    BranchConfig,
    ConvolutionalTransformationConfig,
    TransformationConfig,
)


@dataclass(frozen=True)
class NsarmConfig:
    """Everything that defines an NSARM model but its weights.

    Attributes:
        name: of the preset, for messages.
        window: side of the low-resolution window, in pixels.
        enlarge: factor by which the window is enlarged (bicubic) before it is encoded.
        sides: of the scales in tokens, coarse to fine.
        patch: latents per token and side.
        autoencoder: shape of the autoencoder.
        transformation: shape of the transformation network; it predicts the first scales.
        transformer: shape of the transformer.
        text_width: width of the text features, or None for a learned constant.
        overlap: fewest pixels that neighbouring windows share.
        sampling: defaults the weights were tuned for.
        color: default colour correction.
    """

    name: str
    window: int
    enlarge: int
    sides: tuple[int, ...]
    patch: int
    autoencoder: AutoencoderConfig
    transformation: AnyTransformationConfig
    transformer: TransformerConfig
    text_width: int | None
    overlap: int
    sampling: Sampling = field(default_factory=Sampling)
    color: str = "both"

    def __post_init__(self) -> None:
        bits = self.autoencoder.channels * self.patch**2
        if (self.transformer.inputs, self.transformer.outputs) != (bits, 2 * bits):
            raise ValueError(f"{self.name}: a token has {bits} bits; the transformer differs")
        for name in ("transformation", "autoencoder"):
            if getattr(self, name).channels != self.autoencoder.channels:
                raise ValueError(f"{self.name}: channels of {name} differ")
        grids = zip(self.preliminary_sides, self.schedule.latents, strict=False)
        if any((side, side) != grid for side, grid in grids):
            raise ValueError(f"{self.name}: the transformation network predicts other scales")

    @property
    def schedule(self) -> ScaleSchedule:
        """Scales of one window."""
        return ScaleSchedule.square(self.sides, self.patch)

    @property
    def preliminary_sides(self) -> tuple[int, ...]:
        """Sides, in latents, of the scales that the transformation network predicts."""
        if isinstance(self.transformation, TransformationConfig):
            return tuple(branch.side for branch in self.transformation.branches)
        return self.transformation.sides

    @property
    def preliminary(self) -> int:
        """Number of scales that the transformation network predicts."""
        return len(self.preliminary_sides)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and side."""
        return self.sides[-1] * self.patch * self.autoencoder.stride // self.window

    family: ClassVar[str] = "nsarm"
    """Of models, as a model folder names it."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = dataclasses.asdict(self)
        values["transformation"]["kind"] = _KINDS[type(self.transformation)]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NsarmConfig":
        """Undo `to_dict`.

        Raises:
            ValueError, TypeError, KeyError: the values are not a configuration.
        """
        values = dict(values)
        transformation = dict(values["transformation"])
        kind = transformation.pop("kind")
        kinds = {name: config for config, name in _KINDS.items()}
        if kind not in kinds:
            raise ValueError(f"unknown kind of transformation network: {kind}")
        if "branches" in transformation:
            transformation["branches"] = tuple(
                BranchConfig(**b) for b in transformation["branches"]
            )
        values["transformation"] = kinds[kind](**_tuples(transformation))
        values["autoencoder"] = AutoencoderConfig(**_tuples(values["autoencoder"]))
        values["transformer"] = TransformerConfig(**values["transformer"])
        values["sampling"] = Sampling(**_tuples(values["sampling"]))
        return cls(**_tuples(values))


_KINDS: dict[type[Any], str] = {
    TransformationConfig: "transformers",
    ConvolutionalTransformationConfig: "convolutions",
}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


_VAE_D56 = AutoencoderConfig(14, 128, (1, 2, 4, 4), encoder_blocks=2, decoder_blocks=3)
_BRANCHES = tuple(
    BranchConfig(*numbers)
    for numbers in (
        (2, 64, 4, 4),
        (4, 128, 6, 4),
        (8, 256, 8, 8),
        (12, 384, 10, 8),
        (16, 512, 12, 8),
        (24, 768, 14, 12),
        (32, 1024, 16, 16),
    )
)
_SIDES_1M = tuple(height for height, _ in schedule_for(1.0, "1M").tokens)


def _like_8b(name: str, width: int, depth: int, heads: int, text_width: int) -> NsarmConfig:
    """NSARM-8B with another transformer."""
    return NsarmConfig(
        name=name,
        window=256,
        enlarge=1,
        sides=_SIDES_1M,
        patch=2,
        autoencoder=_VAE_D56,
        transformation=TransformationConfig(14, 32, (64, 128), _BRANCHES),
        transformer=TransformerConfig(width, depth, heads, 56, 112, scales=15, cross=True),
        text_width=text_width,
        overlap=32,
    )


def _nano() -> NsarmConfig:
    sides = (1, 2, 4, 8, 16, 32, 32)
    channels, width = 24, 128
    return NsarmConfig(
        name="nsarm-nano",
        window=64,
        enlarge=4,
        sides=sides,
        patch=2,
        autoencoder=AutoencoderConfig(
            channels, width, (1,), encoder_blocks=1, decoder_blocks=4, unshuffle=4
        ),
        transformation=ConvolutionalTransformationConfig(
            channels, width, blocks=8, sides=tuple(2 * s for s in sides[:6])
        ),
        transformer=TransformerConfig(
            256, 2, 4, 4 * channels, 8 * channels, scales=len(sides), cross=False
        ),
        text_width=None,
        overlap=8,
        sampling=Sampling(temperature=0.25),
    )


NSARM_8B = _like_8b("nsarm-8b", 3584, 40, 28, 2048)
NSARM_TINY = _like_8b("tiny", 256, 4, 4, 256)
NSARM_WIDE = _like_8b("wide", 3584, 2, 28, 2048)
NSARM_NANO = _nano()

PRESETS = {config.name: config for config in (NSARM_8B, NSARM_TINY, NSARM_WIDE, NSARM_NANO)}
