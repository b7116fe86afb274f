"""Binary spherical quantisation (arXiv 2406.07548), as Infinity uses it per scale.

A latent vector of d numbers becomes d bits, one per sign; its code is the corner
+-1/sqrt(d) of the unit sphere that lies nearest. There are no learned tensors.

Letters: b batch, d bits per latent, h w latents; p latents per token and side.
"""

import math

import torch
from einops import rearrange
from torch import Tensor


def latents_to_bits(latents: Tensor) -> Tensor:
    """Sign bits of "b d h w" latents: true where positive; zero gives false."""
    return latents > 0


def bits_to_codes(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Codes +-1/sqrt(d) of "b d h w" bits; the constant is exact, without renormalising."""
    corner = 1 / math.sqrt(bits.shape[1])
    return bits.to(dtype) * (2 * corner) - corner


def quantise(latents: Tensor) -> Tensor:
    """Codes of "b d h w" latents, without a gradient."""
    return bits_to_codes(latents_to_bits(latents), latents.dtype)


def to_tokens(x: Tensor, patch: int) -> Tensor:
    """Group "b d (h p) (w p)" latents, codes or bits to tokens "b (h w) (d p p)"."""
    return rearrange(x, "b d (h p) (w q) -> b (h w) (d p q)", p=patch, q=patch)


def from_tokens(tokens: Tensor, patch: int, height: int) -> Tensor:
    """Undo `to_tokens`; `height` is the number of token rows."""
    return rearrange(tokens, "b (h w) (d p q) -> b d (h p) (w q)", p=patch, q=patch, h=height)


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """`quantised` in the forward pass, the gradient of `latents` in the backward pass."""
    return latents + (quantised - latents).detach()


def entropy_terms(latents: Tensor, inverse_temperature: float) -> tuple[Tensor, Tensor]:
    """Per-sample and codebook entropy of the bits, in bits per bit (arXiv 2406.07548, Eq. 6-8).

    Args:
        latents: "b d h w" residuals before quantisation.
        inverse_temperature: sharpness of the soft assignment to the two corners.

    Returns:
        Mean entropy of each bit (to be lowered: sure bits) and entropy of each bit's
        mean over samples, averaged over d (to be raised: used bits).
    """
    probability = torch.sigmoid(
        2 * inverse_temperature * latents.float() / math.sqrt(latents.shape[1])
    )
    return _binary_entropy(probability).mean(), _binary_entropy(probability.mean((0, 2, 3))).mean()


def _binary_entropy(p: Tensor) -> Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())
