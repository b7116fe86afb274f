"""The low-resolution picture as tokens before the first scale (VARSR arXiv 2501.18993).

Letters: b batch, h w pixels, c width of the transformer.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class PrefixEncoder(nn.Module):
    """A plain convolutional network that halves the picture between its stages.

    Args:
        channels: of the stages, from the picture inwards; each but the first begins with half
            the resolution of the one before.
        width: c.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for outer, inner in pairwise(channels):
            blocks.append(nn.Conv2d(outer, outer, 3, padding=1))
            blocks.append(nn.Conv2d(outer, inner, 3, padding=1, stride=2))
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(channels[-1], width, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode enlarged pictures "b 3 h w" in [-1, 1] to "b c h/stride w/stride"."""
        x = F.silu(self.conv_in(pictures))
        for conv in self.blocks:
            x = F.silu(conv(x))
        return self.conv_out(x)  # type: ignore[no-any-return]
