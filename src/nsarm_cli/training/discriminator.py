"""A patch discriminator: which parts of a picture look like a photograph.

Hinge losses and spectral normalisation as in arXiv 1802.05957; patches as in arXiv 1611.07004.

Letters: b batch, h w pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight, as a matrix, has a largest singular value of one.

    The value is computed afresh from the weight rather than followed by power iteration, so
    that a loss depends on weights and data alone and a resumed run repeats an unbroken one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve "b c h w" with the normalised weight."""
        with torch.autocast(x.device.type, enabled=False):
            matrix = self.weight.float().flatten(1)
            with torch.no_grad():
                left = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
            weight = self.weight / (left @ matrix).norm()
        return F.conv2d(x, weight.to(x.dtype), self.bias, self.stride, self.padding)


class PatchDiscriminator(nn.Module):
    """Scores patches of a picture; higher is more like a photograph.

    Args:
        width: channels of the first layer; the others have two and four times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        slope = 0.2
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            SpectralConv2d(12, width, 3, padding=1),
            nn.LeakyReLU(slope),
            SpectralConv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(slope),
            SpectralConv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(slope),
            SpectralConv2d(4 * width, 4 * width, 3, padding=1),
            nn.LeakyReLU(slope),
            SpectralConv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Score "b 3 h w" in [-1, 1], sides multiples of 8, as "b 1 h/8 w/8"."""
        return self.layers(pictures)  # type: ignore[no-any-return]

    def real_or_made(self, real: Tensor, made: Tensor) -> Tensor:
        """What the discriminator lowers: hinge loss on photographs and made pictures."""
        scores = self(torch.cat([real, made.detach()])).float()
        of_real, of_made = scores.chunk(2)
        return F.relu(1 - of_real).mean() + F.relu(1 + of_made).mean()

    def realism(self, made: Tensor) -> Tensor:
        """What the maker raises: the mean score; no gradient reaches the discriminator."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        scores = torch.func.functional_call(self, weights, (made,))
        return scores.float().mean()  # type: ignore[no-any-return]
