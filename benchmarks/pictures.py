"""Test pictures for the benchmarks: seeded inputs and the bicubic enlargement beside them."""

from pathlib import Path
from zlib import crc32

import torch
from PIL import Image

from nsarm_cli.degradation import REALESRGAN_LIGHT, degrade
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.runtime import window_generator
from nsarm_cli.training.photos import PhotoStore

SCALE = 4


def photos(store: PhotoStore) -> dict[str, int]:
    """Index the pictures of a store by name without ending, in the order of the names."""
    return dict(sorted((Path(store.name(i)).stem, i) for i in range(len(store))))


def whole_scales(picture: Image.Image) -> Image.Image:
    """Cut what is beyond a multiple of the scale off the right and the bottom."""
    width, height = (side // SCALE * SCALE for side in picture.size)
    return picture.crop((0, 0, width, height))


def degraded(hr: Image.Image, name: str, seed: int) -> Image.Image:
    """Reduce a picture with the light Real-ESRGAN degradation.

    Args:
        hr: mode "RGB", sides are multiples of 4.
        name: of the picture; with the seed it fixes every draw, so the result does not depend
            on which other pictures are reduced.
        seed: any integer.

    Returns:
        A picture a quarter as wide and high.
    """
    rng = window_generator(seed, crc32(name.encode()))
    lr = degrade((to_tensor(hr)[None] + 1) / 2, REALESRGAN_LIGHT, [rng])
    return to_image(torch.clamp(lr[0] * 2 - 1, -1, 1))


def reduced(hr: Image.Image) -> Image.Image:
    """Reduce a picture by bicubic alone: a clean input."""
    return hr.resize((hr.width // SCALE, hr.height // SCALE), Image.Resampling.BICUBIC)


def bicubic(lr: Image.Image) -> Image.Image:
    """Enlarge a picture as everybody can."""
    return lr.resize((lr.width * SCALE, lr.height * SCALE), Image.Resampling.BICUBIC)
