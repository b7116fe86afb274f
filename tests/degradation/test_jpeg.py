"""The JPEG round trip, against its own limits and against a real encoder."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nsarm_cli.degradation.jpeg import jpeg_round_trip, quality_factor


def picture(height: int, width: int, colour: bool = True) -> Tensor:
    """A random picture "3 h w", on 8-bit levels: coarse structure in colour, fine in grey."""
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(1, 3, height, width)
    for cells, weight, channels in ((4, 0.5, 3 if colour else 1), (12, 0.3, 1), (48, 0.2, 1)):
        noise = torch.rand(1, channels, cells, cells, generator=rng)
        total += weight * F.interpolate(noise, size=(height, width), mode="bicubic")
    return (total[0].clamp(0, 1) * 255).round() / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


def pillow_round_trip(x: Tensor, quality: int) -> Tensor:
    pixels = (x.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255


def test_quality_factor_is_that_of_the_standard_encoder():
    assert quality_factor(50) == 1
    assert quality_factor(25) == 2
    assert quality_factor(95) == pytest.approx(0.1)


def test_quality_100_is_nearly_the_identity_on_grey():
    """Steps of 1 in an orthonormal transform: the error is that of rounding, 1/12 of a level."""
    x = picture(64, 96, colour=False)
    assert psnr(jpeg_round_trip(x, 100), x) > 58


def test_lower_quality_gives_a_larger_error():
    x = picture(96, 96)
    errors = [psnr(jpeg_round_trip(x, q), x) for q in (100, 90, 70, 50, 30, 10)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] - errors[-1] > 8


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_grey_pictures_agree_with_pillow(quality: int):
    """Pillow rounds steps and pixels to integers; nothing else differs on grey.

    41 dB is an error of 2.3 levels, and at least 5 dB under that of the compression itself: a
    transposed table of steps comes no nearer to Pillow than 36 dB at the lower two qualities.
    """
    x = picture(64, 96, colour=False)
    ours, theirs = jpeg_round_trip(x, quality), pillow_round_trip(x, quality)
    assert psnr(ours, theirs) > 41
    assert psnr(ours, theirs) > psnr(ours, x) + 5


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_colour_pictures_agree_with_pillow(quality: int):
    """Pillow also interpolates chroma when it decodes, where this repeats it: 37 dB."""
    x = picture(96, 64)
    ours, theirs = jpeg_round_trip(x, quality), pillow_round_trip(x, quality)
    assert psnr(ours, theirs) > 37
    assert psnr(theirs, x) == pytest.approx(psnr(ours, x), abs=1)


@pytest.mark.parametrize("size", [(1, 1), (17, 30), (48, 33)])
def test_sizes_need_not_be_multiples_of_sixteen(size: tuple[int, int]):
    x = picture(*size)
    padded = F.pad(x, (0, -size[1] % 16, 0, -size[0] % 16))
    out = jpeg_round_trip(x, 70)
    assert out.shape == x.shape
    assert torch.equal(out, jpeg_round_trip(padded, 70)[:, : size[0], : size[1]])


def test_flat_grey_keeps_its_colour_and_chroma_is_shared_by_four_pixels():
    grey = torch.full((3, 16, 16), 128 / 255)
    torch.testing.assert_close(jpeg_round_trip(grey, 50), grey, rtol=0, atol=1e-5)

    out = jpeg_round_trip(0.25 + picture(32, 32) / 2, 90) * 255
    blue_difference = out[2] - (0.299 * out[0] + 0.587 * out[1] + 0.114 * out[2])
    inside = (out.amin(0) > 0) & (out.amax(0) < 255)  # clamping would move the colour
    assert inside.all()
    assert (blue_difference[::2, ::2] - blue_difference[1::2, 1::2]).abs().max() < 1e-2


@pytest.mark.parametrize("quality", [0.0, -1.0, 100.5])
def test_an_impossible_quality_is_refused(quality: float):
    with pytest.raises(ValueError, match="quality"):
        jpeg_round_trip(torch.zeros(3, 16, 16), quality)
