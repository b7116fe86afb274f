"""Convolutional tokenizer between pictures and latents: a VQGAN with f = 16.

It differs from NSARM's autoencoder by single-head attention on the deepest level.

Letters: b batch, c channels, h w pixels or cells of a map, d latent channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.convolution import Downsample, ResidualBlock, Upsample
from nsarm_cli.models.varsr.quantiser import Quantiser

GROUPS = 32
EPS = 1e-6


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the tokenizer.

    Attributes:
        channels: d.
        width: channels of the first level, a multiple of 32.
        multipliers: width of each level relative to the first; each level but the last
            halves the resolution, and the last has attention.
        encoder_blocks: residual blocks per encoder level.
        decoder_blocks: residual blocks per decoder level.
        codes: entries of the codebook.
        blends: convolutions that the scales share between them.
    """

    channels: int
    width: int
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    codes: int = 4096
    blends: int = 4

    def __post_init__(self) -> None:
        if self.width % GROUPS:
            raise ValueError(f"width {self.width} is not a multiple of {GROUPS}")

    @property
    def stride(self) -> int:
        """Pixels per latent and side."""
        return int(2 ** (len(self.multipliers) - 1))


class AttentionBlock(nn.Module):
    """Every cell of a map attends to all others, with one head of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=EPS)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return "b c h w"."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (t c) h w -> t b (h w) c", t=3)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[-2]))  # type: ignore[no-any-return]


def _level(inputs: int, outputs: int, count: int, *, attends: bool) -> Iterator[nn.Module]:
    for i in range(count):
        yield ResidualBlock(inputs if i == 0 else outputs, outputs, GROUPS)
        if attends:
            yield AttentionBlock(outputs)


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(width, width, GROUPS),
        AttentionBlock(width),
        ResidualBlock(width, width, GROUPS),
    )


class Encoder(nn.Module):
    """Pictures to latents."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        self.levels = nn.ModuleList()
        previous = config.width
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            blocks = _level(previous, width, config.encoder_blocks, attends=last)
            self.levels.append(nn.Sequential(*blocks, *([] if last else [Downsample(width)])))
            previous = width
        self.middle = _middle(previous)
        self.norm_out = nn.GroupNorm(GROUPS, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, config.channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode "b 3 h w" in [-1, 1] to "b d h/stride w/stride", unbounded."""
        x = self.conv_in(pictures)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.middle = _middle(widths[0])
        self.levels = nn.ModuleList()
        previous = widths[0]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            blocks = _level(previous, width, config.decoder_blocks, attends=i == 0)
            self.levels.append(nn.Sequential(*blocks, *([] if last else [Upsample(width)])))
            previous = width
        self.norm_out = nn.GroupNorm(GROUPS, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode "b d h w" to "b 3 (stride h) (stride w)", not clamped."""
        x = self.middle(self.conv_in(latents))
        for level in self.levels:
            x = level(x)
        return self.finish(x)

    def finish(self, x: Tensor) -> Tensor:
        """Norm, activation and convolution after the last level."""
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]


class Tokenizer(nn.Module):
    """Encoder, decoder and quantiser of one latent space.

    Maps keep "b c h w" in memory: with channels last, PyTorch's group norm on a processor
    takes the variance as a difference of means and loses a digit or two.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.before = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.after = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.quantiser = Quantiser(config.codes, config.channels, config.blends)

    def encode(self, pictures: Tensor) -> Tensor:
        """Encode "b 3 h w" in [-1, 1] to latents "b d h/stride w/stride" before quantisation.

        Raises:
            ValueError: the size is not a multiple of the stride.
        """
        stride = self.config.stride
        if pictures.shape[-2] % stride or pictures.shape[-1] % stride:
            raise ValueError(f"size {tuple(pictures.shape[-2:])} is not a multiple of {stride}")
        return self.before(self.encoder(pictures.contiguous()))  # type: ignore[no-any-return]

    def decode(self, feature: Tensor) -> Tensor:
        """Decode summed codes "b d h w" to pictures, clamped to [-1, 1]."""
        return self.decoder(self.after(feature.contiguous())).clamp(-1, 1)  # type: ignore[no-any-return]
