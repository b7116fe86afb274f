"""How much each latent of a window counts where windows overlap."""

import math

import torch
from torch import Tensor

_VARIANCE = 0.01
"""Of a window of side 1."""


def window_weights(side: int) -> Tensor:
    """Weights "side side", float64, to be divided by their sum over all windows.

    A bell over the middle, whose tails fall to a millionth at the borders. Rows are centred on
    side / 2 and columns half a latent before, as in the authors' tiled test.
    """
    places = torch.arange(side, dtype=torch.float64)

    def bell(middle: float) -> Tensor:
        distance = (places - middle) / side
        return (-distance.square() / (2 * _VARIANCE)).exp() / math.sqrt(2 * math.pi * _VARIANCE)

    return bell(side / 2)[:, None] * bell((side - 1) / 2)
