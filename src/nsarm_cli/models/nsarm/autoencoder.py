"""Convolutional autoencoder between pictures and latents.

NSARM-8B uses Infinity's "d56 f8 patchify" VAE: plain residual blocks, no attention,
no KL term (the encoder emits d channels). The small models put a space-to-depth
step before it, which moves the work from pixels to latents.

Letters: b batch, h w pixels, d latent channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.convolution import Downsample, ResidualBlock, Upsample


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the autoencoder.

    Attributes:
        channels: d, numbers (later bits) per latent.
        width: channels of the first level.
        multipliers: width of each level relative to the first; each level but the
            last halves the resolution.
        encoder_blocks: residual blocks per encoder level.
        decoder_blocks: residual blocks per decoder level.
        unshuffle: side of the pixel block that is folded into channels at the input
            and unfolded at the output; 1 folds nothing.
        groups: groups of each GroupNorm.
    """

    channels: int
    width: int
    multipliers: tuple[int, ...]
    encoder_blocks: int
    decoder_blocks: int
    unshuffle: int = 1
    groups: int = 32

    def __post_init__(self) -> None:
        if self.width % self.groups:
            raise ValueError(f"width {self.width} is not a multiple of {self.groups} groups")

    @property
    def stride(self) -> int:
        """Pixels per latent and side."""
        return int(self.unshuffle * 2 ** (len(self.multipliers) - 1))


class Encoder(nn.Module):
    """Pictures to latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        groups = config.groups
        self.unshuffle = nn.PixelUnshuffle(config.unshuffle)
        self.conv_in = nn.Conv2d(3 * config.unshuffle**2, config.width, 3, padding=1)
        self.levels = nn.ModuleList()
        previous = config.width
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            blocks = _residual_blocks(previous, width, config.encoder_blocks, groups)
            self.levels.append(nn.Sequential(*blocks, *([] if last else [Downsample(width)])))
            previous = width
        self.middle = nn.Sequential(*_residual_blocks(previous, previous, 2, groups))
        self.norm_out = nn.GroupNorm(groups, previous, eps=1e-6)
        self.conv_out = nn.Conv2d(previous, config.channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode "b 3 h w" in [-1, 1] to "b d h/stride w/stride", unbounded."""
        x = self.conv_in(self.unshuffle(pictures))
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in reversed(config.multipliers)]
        groups = config.groups
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.middle = nn.Sequential(*_residual_blocks(widths[0], widths[0], 2, groups))
        self.levels = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            blocks = _residual_blocks(previous, width, config.decoder_blocks, groups)
            self.levels.append(nn.Sequential(*blocks, *([] if last else [Upsample(width)])))
            previous = width
        self.norm_out = nn.GroupNorm(groups, previous, eps=1e-6)
        self.conv_out = nn.Conv2d(previous, 3 * config.unshuffle**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(config.unshuffle)

    def forward(self, feature: Tensor) -> Tensor:
        """Decode "b d h w" to "b 3 (stride h) (stride w)", not clamped."""
        x = self.middle(self.conv_in(feature))
        for level in self.levels:
            x = level(x)
        return self.shuffle(self.finish(x))  # type: ignore[no-any-return]

    def finish(self, x: Tensor) -> Tensor:
        """Norm, activation and convolution after the last level."""
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """Encoder and decoder of one latent space."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode "b 3 h w" in [-1, 1] to latents "b d h/stride w/stride".

        Raises:
            ValueError: the size is not a multiple of the stride.
        """
        stride = self.config.stride
        if pictures.shape[-2] % stride or pictures.shape[-1] % stride:
            raise ValueError(f"size {tuple(pictures.shape[-2:])} is not a multiple of {stride}")
        return self.encoder(pictures)  # type: ignore[no-any-return]

    def decode(self, feature: Tensor) -> Tensor:
        """Decode summed codes to "b 3 h w", clamped to [-1, 1]."""
        return self.decoder(feature).clamp(-1, 1)  # type: ignore[no-any-return]


def _residual_blocks(inputs: int, outputs: int, count: int, groups: int) -> Sequence[nn.Module]:
    return [ResidualBlock(inputs if i == 0 else outputs, outputs, groups) for i in range(count)]
