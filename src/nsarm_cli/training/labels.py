"""Training targets: residuals for stage 1 and modified labels for stage 2.

Letters: b batch, d latent channels, s side of a scale in latents, l tokens, n bits per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nsarm_cli.models.core.pyramid import ResidualPyramid, Resize, leading_residuals
from nsarm_cli.models.nsarm import bsq


def preliminary_targets(target: Tensor, pyramid: ResidualPyramid, scales: int) -> list[Tensor]:
    """Residuals of the first scales of high-resolution latents, un-quantised (Eq. 4).

    Args:
        target: "b d h w", the encoder's output for the high-resolution picture.
        pyramid: of the full schedule.
        scales: how many.

    Returns:
        "b d s s" per scale; each is the residual against the quantised sum so far.
    """
    return leading_residuals(target, pyramid.grids[:scales], bsq.quantise)


@dataclass(frozen=True)
class TeacherForcing:
    """Inputs and labels of one pass over all scales.

    Attributes:
        inputs: tokens "b l n" of scales 1 to K-1.
        labels: bits "b l n" of scales 0 to K-1.
        feature: sum of all codes, "b d h w".
    """

    inputs: list[Tensor]
    labels: list[Tensor]
    feature: Tensor


def modified_labels(
    target: Tensor,
    preliminary: Sequence[Tensor],
    pyramid: ResidualPyramid,
    patch: int,
    next_input: Resize,
    *,
    flips: Sequence[Tensor | None] | None = None,
) -> TeacherForcing:
    """Labels that correct the transformed scales (Alg. 2), with optional self-correction.

    The first scales' labels are the transformation network's own bits. Every later scale is
    taken against the sum so far, so it must undo the errors of the earlier ones; where bits
    are flipped on purpose (Infinity's bitwise self-correction), it must undo those too.

    Args:
        target: "b d h w" latents of the high-resolution picture.
        preliminary: the transformation network's residuals "b d s s".
        pyramid: of the full schedule.
        patch: latents per token and side.
        next_input: how the sum is brought to the next scale; Infinity trained with bilinear
            and samples with area.
        flips: per scale a mask "b d s s", true where the bit that goes on is flipped, or
            None; labels stay as they are.

    Returns:
        Inputs, labels and the summed codes.
    """
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    feature: Tensor | None = None
    for k, grid in enumerate(pyramid.grids):
        known = k < len(preliminary)
        residual = preliminary[k] if known else pyramid.residual(target, feature, k)
        bits = bsq.latents_to_bits(residual)
        labels.append(bsq.to_tokens(bits, patch))
        flip = None if flips is None else flips[k]
        codes = bsq.bits_to_codes(bits if flip is None else bits ^ flip)
        if feature is not None:
            inputs.append(bsq.to_tokens(next_input(feature, grid), patch))
        feature = pyramid.add(feature, codes, k)
    if feature is None:
        raise ValueError("a pyramid has at least one scale")
    return TeacherForcing(inputs, labels, feature)


def draw_flips(
    shapes: Sequence[tuple[int, ...]], strongest: float, generators: Sequence[torch.Generator]
) -> list[Tensor]:
    """Masks of bits to flip: per sample and scale a share in [0, strongest], then each bit.

    Args:
        shapes: "d s s" of each scale.
        strongest: largest share.
        generators: one per sample, so that a sample's flips do not depend on its batch.

    Returns:
        Per scale "b d s s", true where a bit is flipped.
    """
    masks = []
    for shape in shapes:
        shares = [float(torch.rand((), generator=rng)) * strongest for rng in generators]
        drawn = [torch.rand(shape, generator=rng) for rng in generators]
        masks.append(torch.stack([d < share for d, share in zip(drawn, shares, strict=True)]))
    return masks
