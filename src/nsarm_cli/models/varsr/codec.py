"""Codebook indices of VARSR between logits, codes and tokens.

Letters: b windows, l tokens of a scale, v codebook entries, d latent channels.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from nsarm_cli.models.core.sampling import draw, exponential_noise, filter_logits, sent
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.varsr.quantiser import Quantiser, to_tokens


class IndexCodec:
    """Draws each token from the whole codebook."""

    symbols = "indices"

    def __init__(self, quantiser: Quantiser) -> None:
        self._quantiser = quantiser

    def skip(self, tokens: int, generators: Sequence[Generator]) -> None:
        """Pass over a known scale's numbers."""
        for generator in generators:
            exponential_noise((tokens, self._quantiser.codebook.num_embeddings), generator)

    def draw(self, logits: Tensor, sampling: Sampling, generators: Sequence[Generator]) -> Tensor:
        """Indices "b l" from logits "b l v"; temperature 0 takes the likeliest entry."""
        if sampling.temperature == 0:
            return logits.argmax(-1)
        scaled = filter_logits(logits / sampling.temperature, top_p=sampling.top_p)
        noise = torch.stack([exponential_noise(logits.shape[1:], g) for g in generators])
        return draw(scaled.softmax(-1), sent(noise, logits.device))

    def to_codes(self, symbols: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes "b d h w" of indices "b l"."""
        return self._quantiser.codes(symbols, grid)

    def to_tokens(self, feature: Tensor) -> Tensor:
        """Input tokens "b l d" of a running sum "b d h w"."""
        return to_tokens(feature)
