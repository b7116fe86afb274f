"""What the shipped model promises, on two photographs it has never seen."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nsarm_cli import Upscaler
from nsarm_cli.imaging.tiles import plan
from nsarm_cli.models.interface import Sampling

PHOTOS = Path(__file__).parent / "goldens" / "photos"


@pytest.fixture(scope="module")
def nano() -> Upscaler:
    return Upscaler.from_pretrained("nsarm-nano", device="cpu")


@pytest.fixture(scope="module", params=["astronaut_256.png", "coffee_256.png"])
def pair(request: pytest.FixtureRequest, nano: Upscaler) -> tuple[Image.Image, Image.Image]:
    """A clean input of odd size and its enlargement."""
    with Image.open(PHOTOS / request.param) as image:
        lr = image.convert("RGB").crop((70, 60, 189, 161))
    return lr, nano.upscale(lr)


def _values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


def _reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)


def test_the_output_is_exactly_four_times_as_large(pair: tuple[Image.Image, Image.Image]) -> None:
    lr, sr = pair
    assert sr.size == (4 * lr.width, 4 * lr.height)


def test_reducing_the_output_gives_the_input_back(pair: tuple[Image.Image, Image.Image]) -> None:
    """At least 24 dB where the input is clean: nothing of it is lost or invented over."""
    lr, sr = pair
    error = np.mean((_values(_reduced(sr, lr.size)) - _values(lr)) ** 2)
    assert 10 * np.log10(255**2 / error) >= 24


def test_colours_do_not_shift(pair: tuple[Image.Image, Image.Image]) -> None:
    lr, sr = pair
    shift = _values(sr).mean((0, 1)) - _values(lr).mean((0, 1))
    assert np.abs(shift).max() <= 2


def test_a_smooth_picture_gets_no_grid_of_the_blocks_that_the_decoder_unfolds(
    nano: Upscaler,
) -> None:
    down, right = np.mgrid[0:64, 0:64]
    ramp = np.stack([90 + 1.2 * right, 140 + 0.5 * down, 170 - 0.6 * right + 0.3 * down], -1)
    lr = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))
    sr = nano.upscale(lr)
    added = _values(sr) - _values(lr.resize(sr.size, Image.Resampling.BICUBIC))
    phases = added.reshape(8, 8, 4, 8, 8, 4, 3).mean((1, 4))  # areas of 8 x 8 blocks
    pattern = phases - phases.mean((1, 3), keepdims=True)
    assert np.abs(pattern).mean() < 0.4  # levels of 255


def test_details_are_sharper_than_bicubic(pair: tuple[Image.Image, Image.Image]) -> None:
    lr, sr = pair
    bicubic = lr.resize(sr.size, Image.Resampling.BICUBIC)
    sharpness = [np.abs(np.diff(_values(x.convert("L")), axis=1)).mean() for x in (sr, bicubic)]
    assert sharpness[0] > 1.1 * sharpness[1]


def test_windows_leave_no_seams(nano: Upscaler) -> None:
    """On smooth photographs the gradient across window borders is that of the interior.

    On one photograph alone chance makes a tenth of difference, hence four.
    """
    window, side = nano.window, 176
    starts = sorted({w.left for w in plan(window, side, window, nano.overlap)})
    borders = [4 * x for x in {*starts, *(s + window for s in starts)} if 0 < x < side]
    # A line's own kind are the others between enlarged input pixels, close to it.
    near = [b + 4 * step for b in borders for step in (-4, -3, -2, 2, 3, 4)]
    at: list[float] = []
    inside: list[float] = []
    for name, left in itertools.product(("coffee_256.png", "astronaut_256.png"), (0, 80)):
        with Image.open(PHOTOS / name) as image:
            soft = image.convert("RGB").filter(ImageFilter.GaussianBlur(3))
        sr = _values(nano.upscale(soft.crop((left, left, left + side, left + side))).convert("L"))
        for axis in (0, 1):
            across = np.abs(np.diff(sr, axis=axis)).mean(1 - axis)
            at += [across[b - 1] for b in borders]
            inside += [across[b - 1] for b in near if 0 < b < 4 * side]
    assert np.mean(at) / np.mean(inside) == pytest.approx(1, abs=0.05)


def test_the_batch_does_not_change_the_picture(nano: Upscaler) -> None:
    with Image.open(PHOTOS / "astronaut_256.png") as image:
        lr = image.convert("RGB").crop((80, 0, 176, 96))
    together = Upscaler.from_pretrained("nsarm-nano", device="cpu", batch=4)
    assert together.upscale(lr, seed=3).tobytes() == nano.upscale(lr, seed=3).tobytes()


def test_the_seed_decides_what_is_drawn(nano: Upscaler) -> None:
    with Image.open(PHOTOS / "astronaut_256.png") as image:
        lr = image.convert("RGB").crop((100, 20, 164, 84))
    warm, cold = Sampling(temperature=0.5), Sampling(temperature=0)
    first, again, other = (nano.upscale(lr, seed=s, sampling=warm).tobytes() for s in (1, 1, 2))
    assert first == again
    assert first != other
    greedy = [nano.upscale(lr, seed=s, sampling=cold).tobytes() for s in (1, 2)]
    assert greedy[0] == greedy[1]
