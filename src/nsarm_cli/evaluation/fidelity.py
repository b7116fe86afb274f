"""Measures that need no learned numbers: PSNR and SSIM of luma, and faithfulness to the input.

Pictures are RGB, uint8, "b 3 h w"; a result is "b", float64. The definitions are those of the
published tables of the field, down to rounding: BT.601 luma of studio range, the whole frame
without cropped borders.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.evaluation.resize import resize_matlab

SSIM_WINDOW = 11
_STUDIO = (65.481, 128.553, 24.966)  # BT.601, of 255, with an offset of 16


def studio_luma(pictures: Tensor) -> Tensor:
    """Compute luma of studio range, not rounded: "b 1 h w", float32, in [16/255, 235/255]."""
    weights = torch.tensor(_STUDIO)
    return ((pictures.float() / 255).permute(0, 2, 3, 1) @ weights + 16)[:, None] / 255


def psnr_y(sr: Tensor, gt: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of luma, in dB of the full range.

    A mean square error of 1e-8 is added, as published tables have it: equal pictures get 80 dB.
    """
    error = (studio_luma(sr) - studio_luma(gt)).double().square().mean((1, 2, 3))
    return -10 * torch.log10(error + 1e-8)


def ssim_y(sr: Tensor, gt: Tensor) -> Tensor:
    """Structural similarity of luma rounded to 8 bits, in [0, 1].

    Windows of 11 x 11 pixels, Gaussian with a deviation of 1.5, only where they fit; a negative
    contrast term counts as 0.

    Source: Wang et al., "Image quality assessment", IEEE TIP 13(4), 2004, Eq. 13.
    """
    x, y = ((studio_luma(p) * 255).round().double() for p in (sr, gt))
    window = gaussian(SSIM_WINDOW, 1.5).double()[None, None]

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    x_mean, y_mean = blur(x), blur(y)
    x_var = blur(x * x) - x_mean**2
    y_var = blur(y * y) - y_mean**2
    covariance = blur(x * y) - x_mean * y_mean
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = F.relu((2 * covariance + c2) / (x_var + y_var + c2))
    luminance = (2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1)
    return (luminance * contrast).mean((1, 2, 3))


def gaussian(side: int, deviation: float) -> Tensor:
    """Weigh a square window, "side side", by a Gaussian; the sum is 1.

    float32, because the programs that made the published numbers store it so: in flat areas,
    where a variance is a difference of nearly equal numbers, the rounding shows.
    """
    offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-(offset**2) / (2 * deviation**2))
    window = line[:, None] * line
    return (window / window.sum()).float()


def lr_psnr(sr: Tensor, lr: Tensor) -> Tensor:
    """PSNR over RGB between the output, reduced to the input's size, and the input, in dB.

    Reduced by MATLAB's bicubic and not rounded; equal pictures get 120 dB.
    """
    error = (_reduced(sr, lr) - lr.double()).square().mean((1, 2, 3)) / 255**2
    return -10 * torch.log10(error.clamp_min(1e-12))


def color_shift(sr: Tensor, lr: Tensor) -> Tensor:
    """By how much the mean of the channel that moved most did, in levels of 255."""
    return (_reduced(sr, lr) - lr.double()).mean((2, 3)).abs().amax(1)


def _reduced(sr: Tensor, lr: Tensor) -> Tensor:
    height, width = lr.shape[-2:]
    return resize_matlab(sr.double(), (height, width)).clamp(0, 255)
