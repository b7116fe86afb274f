"""Pictures as tensors and back, and Pillow's bicubic resize on tensors.

Letters: b batch, h w height and width in pixels. Values are RGB in [-1, 1].
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.imaging.rows import STRIP, Rows


def to_tensor(image: Image.Image) -> Tensor:
    """Turn a picture into numbers.

    Args:
        image: mode "RGB".

    Returns:
        "3 h w", float32: 0 becomes -1 and 255 becomes 1.

    Raises:
        ValueError: another mode; `rgb.to_rgb` converts it.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected a picture of mode RGB, got {image.mode}")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.float().div_(255).mul_(2).sub_(1)


def to_u8(x: Tensor) -> Tensor:
    """Round values in [-1, 1] to the nearest of the 256 levels.

    Args:
        x: any shape, any float type; values beyond [-1, 1] are clamped.

    Returns:
        The same shape, uint8.
    """
    # Upstream: truncates. We: round, because truncation darkens by half a level on average.
    return x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_image(x: Tensor) -> Image.Image:
    """Turn numbers into a picture, the inverse of `to_tensor`.

    Args:
        x: "3 h w" as for `to_u8`, on any device.

    Returns:
        A picture of mode "RGB".
    """
    return Image.fromarray(to_u8(x).permute(1, 2, 0).contiguous().cpu().numpy())


def to_rows(image: Image.Image) -> Rows:
    """Walk through a picture of mode "RGB", a strip of it in float at a time."""

    def strips() -> Iterator[Tensor]:
        for top in range(0, image.height, STRIP):
            bottom = min(top + STRIP, image.height)
            yield to_tensor(image.crop((0, top, image.width, bottom)))

    return Rows(image.height, image.width, strips())


def from_rows(rows: Rows) -> Image.Image:
    """Put rows together again, the inverse of `to_rows`; only bytes are held."""
    whole = Image.new("RGB", (rows.width, rows.height))
    top = 0
    for strip in rows.strips:
        whole.paste(to_image(strip), (0, top))
        top += strip.shape[1]
    return whole


def resize_bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as Pillow's BICUBIC does (a = -0.5, antialiased when shrinking), without its rounding.

    Each channel goes through Pillow as floats, first its width, then its height, and is clamped
    after each, as bytes are there. So the result, rounded, is within one level of Pillow's
    whenever both sides grow or both shrink; Pillow may change the order when one does either.
    PyTorch's own bicubic has another kernel (a = -0.75 without antialiasing) and other edges.

    Args:
        x: "b 3 h w", float in [-1, 1].
        size: (height, width) to give it, in pixels.

    Returns:
        "b 3 height width" in [-1, 1], of the type and on the device of `x`.
    """
    height, width = size
    planes = x.detach().to("cpu", torch.float32).flatten(0, 1).numpy()
    resized = np.empty((len(planes), height, width), dtype=np.float32)
    for plane, target in zip(planes, resized, strict=True):
        wide = _bicubic(plane, (width, plane.shape[0]))
        target[:] = _bicubic(wide, (width, height))
    return torch.from_numpy(resized).reshape(*x.shape[:2], height, width).to(x)


def _bicubic(plane: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize "h w" to Pillow's (width, height) and clamp the overshoot at sharp edges."""
    image = Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32).clip(-1, 1)
