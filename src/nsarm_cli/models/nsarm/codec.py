"""Bits of NSARM between logits, codes and tokens.

Letters: b windows, l tokens of a scale, n bits per token (d p p), d latent channels,
p latents per token and side.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Generator, Tensor

from nsarm_cli.models.core.sampling import draw, exponential_noise, filter_logits, sent
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm import bsq


class BitCodec:
    """Draws each bit on its own, so the cost grows with n and not with 2^n (Infinity, sec. 3.2).

    Args:
        channels: d.
        patch: p.
    """

    symbols = "bits"

    def __init__(self, channels: int, patch: int) -> None:
        self.bits = channels * patch * patch
        self._patch = patch

    def skip(self, tokens: int, generators: Sequence[Generator]) -> None:
        """Pass over a known scale's numbers, which the authors' code draws and throws away."""
        for generator in generators:
            exponential_noise((tokens * self.bits, 2), generator)

    def draw(self, logits: Tensor, sampling: Sampling, generators: Sequence[Generator]) -> Tensor:
        """Bits "b l n" from logits "b l (n 2)"; the pairs are (bit is 0, bit is 1).

        Temperature 0 takes the likelier bit and uses no randomness.
        """
        pairs = rearrange(logits, "b l (n two) -> b l n two", two=2)
        if sampling.temperature == 0:
            return pairs[..., 1] > pairs[..., 0]
        scaled = filter_logits(pairs / sampling.temperature, top_p=sampling.top_p)
        shape = (pairs.shape[1] * self.bits, 2)
        noise = torch.stack([exponential_noise(shape, g) for g in generators])
        return draw(scaled.softmax(-1), sent(noise, pairs.device).view_as(pairs)).bool()

    def to_codes(self, symbols: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes "b d h w" of bits "b l n"."""
        return bsq.bits_to_codes(bsq.from_tokens(symbols, self._patch, grid[0] // self._patch))

    def to_tokens(self, feature: Tensor) -> Tensor:
        """Input tokens "b l n" of a running sum "b d h w"."""
        return bsq.to_tokens(feature, self._patch)
