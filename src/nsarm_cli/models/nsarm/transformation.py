"""Transformation network: low-resolution latents to the first scales (NSARM section 3.2).

Letters: b batch, d latent channels, s side of a scale in latents, c width of a branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.convolution import ResidualBlock
from nsarm_cli.models.core.pyramid import ResidualPyramid, leading_residuals
from nsarm_cli.models.nsarm.bsq import quantise


@dataclass(frozen=True)
class BranchConfig:
    """One branch of the network, which predicts one scale.

    Attributes:
        side: of the scale, in latents.
        width: of its transformer.
        layers: of its transformer.
        heads: of its transformer.
    """

    side: int
    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class TransformationConfig:
    """The paper's network: a small trunk and one transformer per scale.

    Attributes:
        channels: d.
        side: of the input, in latents; the layer norms are made for this size only.
        trunk: widths of the trunk's first two convolutions.
        branches: one per predicted scale, coarse to fine.
    """

    channels: int
    side: int
    trunk: tuple[int, int]
    branches: tuple[BranchConfig, ...]


class TransformationNetwork(nn.Module):
    """The network of NSARM-8B."""

    def __init__(self, config: TransformationConfig) -> None:
        super().__init__()
        side, channels = config.side, config.channels
        first, second = config.trunk
        self.trunk = nn.Sequential(
            *_conv_norm(channels, first, side),
            *_conv_norm(first, second, side),
            *_conv_norm(second, channels, side),
        )
        self.branches = nn.ModuleList(_Branch(config, branch) for branch in config.branches)

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Predict the residuals of the first scales, coarse to fine.

        Args:
            latents: "b d side side", the encoder's output for the low-resolution picture.

        Returns:
            "b d s s" for each branch, not quantised.
        """
        x = self.trunk(latents)
        return [branch(x) for branch in self.branches]

    def learned(self, latents: Tensor) -> list[Tensor]:
        """What stage 1 compares with `wanted`: the residuals themselves (Eq. 4)."""
        return self(latents)  # type: ignore[no-any-return]

    def wanted(self, target: Tensor, residuals: list[Tensor]) -> list[Tensor]:
        """What `learned` should be, given high-resolution latents and their residuals."""
        return residuals

    def estimate(self, learned: list[Tensor], pyramid: ResidualPyramid) -> Tensor:
        """The sum of the first scales, "b d h w", as if nothing were quantised."""
        return pyramid.compose(learned)


class _Branch(nn.Module):
    def __init__(self, config: TransformationConfig, branch: BranchConfig) -> None:
        super().__init__()
        width, half = branch.width, branch.width // 2
        self.side = branch.side
        self.lift = nn.Sequential(
            *_conv_norm(config.channels, half, config.side), *_conv_norm(half, width, config.side)
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, branch.heads, 4 * width, dropout=0.1, activation="relu", batch_first=True
            )
            for _ in range(branch.layers)
        )
        self.out = nn.Sequential(
            nn.Linear(width, half), nn.LayerNorm(half), nn.GELU(), nn.Linear(half, config.channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.lift(x), self.side)
        tokens = rearrange(pooled, "b c h w -> b (h w) c")
        for layer in self.layers:
            tokens = layer(tokens)
        # The trained weights read the flat (position, channel) numbers as (channel, y, x):
        # a plain reshape, not a transpose. The targets of stage 1 were made the same way.
        out = self.out(tokens)
        return out.reshape(out.shape[0], -1, self.side, self.side)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ConvolutionalTransformationConfig:
    """A transformation network for small models: convolutions instead of transformers.

    Attributes:
        channels: d.
        width: of the trunk.
        blocks: residual blocks of the trunk.
        sides: of the predicted scales in latents, coarse to fine, for a full window.
        groups: of each GroupNorm.
    """

    channels: int
    width: int
    blocks: int
    sides: tuple[int, ...]
    groups: int = 32


class ConvolutionalTransformationNetwork(nn.Module):
    """Predicts the high-resolution latents, whose residual pyramid gives the scales.

    Every scale is thus taken against the sum of the coarser ones that were really predicted,
    and makes up for what their bits lost; separate branches cannot know each other's errors.
    """

    def __init__(self, config: ConvolutionalTransformationConfig) -> None:
        super().__init__()
        width = config.width
        self._grids = [(side, side) for side in config.sides]
        self.lift = nn.Conv2d(config.channels, width, 3, padding=1)
        self.trunk = nn.Sequential(
            *(ResidualBlock(width, width, config.groups) for _ in range(config.blocks))
        )
        self.norm = nn.GroupNorm(config.groups, width, eps=1e-6)
        self.out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Predict the residuals of the first scales, coarse to fine, as "b d s s", float32."""
        (predicted,) = self.learned(latents)
        return leading_residuals(predicted.float(), self._grids, quantise)

    def learned(self, latents: Tensor) -> list[Tensor]:
        """What stage 1 compares with `wanted`: the predicted latents, "b d h w"."""
        return [self.out(F.silu(self.norm(self.trunk(self.lift(latents)))))]

    def wanted(self, target: Tensor, residuals: list[Tensor]) -> list[Tensor]:
        """What `learned` should be, given high-resolution latents "b d h w"."""
        return [target]

    def estimate(self, learned: list[Tensor], pyramid: ResidualPyramid) -> Tensor:
        """The sum of the first scales, "b d h w", as if nothing were quantised."""
        return learned[0]


AnyTransformationConfig = TransformationConfig | ConvolutionalTransformationConfig


def build_transformation(
    config: AnyTransformationConfig,
) -> TransformationNetwork | ConvolutionalTransformationNetwork:
    """The network that a configuration describes."""
    if isinstance(config, TransformationConfig):
        return TransformationNetwork(config)
    return ConvolutionalTransformationNetwork(config)


def _conv_norm(inputs: int, outputs: int, side: int) -> Sequence[nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LayerNorm([outputs, side, side]),
        nn.GELU(),
    )
