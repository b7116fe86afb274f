"""Colour correction: its algebra, and the pictures recorded from the paper's own code."""

import hashlib
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from nsarm_cli.imaging.color import METHODS, adain, match_color, wavelet, wavelet_split
from nsarm_cli.imaging.tensors import resize_bicubic, to_tensor

GOLDENS = Path(__file__).parents[1] / "goldens"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_2d(x: torch.Tensor, levels: int) -> torch.Tensor:
    """The definition: a 3x3 kernel on each channel, its taps apart, the border repeated."""
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = (taps[:, None] * taps / 16).expand(3, 1, 3, 3)
    for d in (2**i for i in range(levels)):
        x = F.conv2d(F.pad(x, (d, d, d, d), mode="replicate"), kernel, dilation=d, groups=3)
    return x


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 3), (40, 33), (70, 70)])
@pytest.mark.parametrize("levels", [0, 1, 3, 5])
def test_the_separable_filter_equals_the_two_dimensional_one(size, levels):
    x = noise(2, 3, *size)
    high, low = wavelet_split(x, levels)
    torch.testing.assert_close(low, smooth_2d(x, levels), atol=1e-6, rtol=0)
    torch.testing.assert_close(high + low, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_wavelet_takes_the_detail_of_one_and_the_rest_of_the_other(levels):
    sr, lr_up = noise(1, 3, 40, 50, seed=1), noise(1, 3, 40, 50, seed=2)
    expected = sr - smooth_2d(sr, levels) + smooth_2d(lr_up, levels)
    torch.testing.assert_close(wavelet(sr, lr_up, levels), expected, atol=1e-6, rtol=0)


def test_adain_gives_each_channel_the_mean_and_spread_of_the_input():
    sr = noise(2, 3, 30, 40, seed=1) * 0.5 + 0.1
    lr_up = noise(2, 3, 30, 40, seed=2) * torch.tensor([0.2, 0.6, 0.9])[:, None, None]
    matched = adain(sr, lr_up)
    dims = (-2, -1)
    torch.testing.assert_close(matched.mean(dims), lr_up.mean(dims))
    torch.testing.assert_close(matched.std(dims), lr_up.std(dims), atol=1e-3, rtol=0)  # 1e-5 added
    torch.testing.assert_close(adain(lr_up, lr_up), lr_up)


def test_adain_leaves_a_flat_channel_flat_and_finite():
    matched = adain(torch.full((1, 3, 8, 8), 0.2), noise(1, 3, 8, 8))
    assert matched.isfinite().all()
    assert matched.std((-2, -1)).max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (13, 9)])
def test_a_picture_with_the_colours_of_its_input_is_left_alone(method, size):
    lr = noise(2, 3, *size) * 2 - 1
    sr = resize_bicubic(lr, (4 * size[0], 4 * size[1]))
    torch.testing.assert_close(match_color(sr, lr, method), sr, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_colour_cast_is_removed_by_every_method_but_none(method):
    lr = (noise(1, 3, 32, 32) - 0.5) * 0.5
    sr = resize_bicubic(lr, (128, 128)) + torch.tensor([0.2, -0.1, 0.1])[:, None, None]
    before = sr.clone()
    matched = match_color(sr, lr, method)
    shift = (matched - lr.mean((-2, -1), keepdim=True)).mean((-2, -1)).abs().max()
    assert shift < 2 / 255 if method != "none" else shift > 0.19
    assert torch.equal(sr, before)


def test_fewer_levels_stay_closer_to_the_input():
    lr = noise(1, 3, 32, 32, seed=1) * 2 - 1
    sr = noise(1, 3, 128, 128, seed=2) * 2 - 1

    def distance(method: str) -> float:
        back = resize_bicubic(match_color(sr, lr, method), (32, 32))
        return float((back - lr).square().mean())

    assert distance("detail") < 0.8 * distance("wavelet") < 0.8 * distance("none")


@pytest.mark.parametrize("method", METHODS)
def test_the_result_stays_in_range_and_keeps_its_number_type(method):
    lr = noise(1, 3, 8, 8).round() * 2 - 1
    sr = (noise(1, 3, 32, 32, seed=3).round() * 2 - 1).bfloat16()
    matched = match_color(sr, lr, method)
    assert matched.shape == sr.shape
    assert matched.dtype == torch.bfloat16
    assert matched.abs().max() <= 1


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="none, adain, wavelet, both, detail, got 'histogram'"):
        match_color(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 1, 1), "histogram")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / "color.safetensors")


@pytest.fixture(scope="module")
def recorded_inputs(golden) -> tuple[torch.Tensor, torch.Tensor]:
    """A photo enlarged by Pillow, and as "SR" its pixels repeated, tinted and made noisy."""
    photo = Image.open(GOLDENS / "photos" / "astronaut_256.png").convert("RGB")
    lr = np.asarray(photo)
    assert np.array_equal(lr, golden["lr.u8"].numpy())
    recipe = runpy.run_path(str(GOLDENS / "weight_recipe.py"))
    gain, offset = np.array([[0.8, 1, 1.1], [30, -10, 5]], dtype=np.float32)
    tinted = lr.repeat(4, 0).repeat(4, 1) * gain + offset
    sr = tinted + 8 * recipe["noise"]("input.color_noise", (1024, 1024, 3))
    sr = np.floor(np.clip(sr, 0, 255)).astype(np.uint8)
    digest = bytes(golden["sr.sha256"].tolist())
    assert hashlib.sha256(sr.tobytes()).digest() == digest
    return torch.from_numpy(sr), torch.from_numpy(np.array(photo.resize((1024, 1024))))


def unit(u8: torch.Tensor) -> torch.Tensor:
    return u8.permute(2, 0, 1)[None].float() / 255


def truncated(x: torch.Tensor) -> torch.Tensor:
    return (x.clamp(0, 1) * 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()


@pytest.mark.parametrize("method", ["none", "adain", "wavelet", "both"])
def test_the_recorded_pictures_are_reproduced(golden, recorded_inputs, method):
    """The recording truncates to 8 bits after each step; so does this.

    A value that lies on a level can fall to either side of it, hence one level of
    tolerance for few pixels.
    """
    picture, lr_up = recorded_inputs
    for correct in METHODS[method]:
        picture = truncated(correct(unit(picture), unit(lr_up)))
    pairs = {
        "sub": picture.flatten()[::53],
        "crop": picture[448:576, 320:448],
    }
    for name, ours in pairs.items():
        difference = (ours.int() - golden[f"{method}.{name}"].int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3
    means = picture.double().mean((0, 1))
    torch.testing.assert_close(means, golden[f"{method}.channel_mean"], atol=1e-3, rtol=0)


def test_the_recorded_decomposition_is_reproduced(golden, recorded_inputs):
    _, lr_up = recorded_inputs
    high, low = wavelet_split(unit(lr_up))
    crops = {"high": high[..., :64, :64], "low": low[..., :64, :64]}
    for name, ours in crops.items():
        torch.testing.assert_close(ours, golden[f"wavelet_{name}.crop"], atol=2e-6, rtol=0)


def test_the_enlarged_input_is_the_recorded_one(golden, recorded_inputs):
    _, lr_up = recorded_inputs
    assert torch.equal(lr_up[448:576, 320:448], golden["lr_up.crop"])
    photo = Image.open(GOLDENS / "photos" / "astronaut_256.png").convert("RGB")
    ours = (resize_bicubic(to_tensor(photo)[None], (1024, 1024)) + 1) * 127.5
    difference = ours[0].permute(1, 2, 0).round().clamp(0, 255) - lr_up
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("method", ["adain", "wavelet", "both"])
def test_the_pipelines_correction_is_within_two_levels_of_the_recording(
    golden, recorded_inputs, method
):
    """Without truncation after each step, which costs up to one level a step."""
    picture, _ = recorded_inputs
    photo = Image.open(GOLDENS / "photos" / "astronaut_256.png").convert("RGB")
    matched = match_color(unit(picture) * 2 - 1, to_tensor(photo)[None], method)
    ours = truncated((matched + 1) / 2).flatten()[::53]
    difference = (ours.int() - golden[f"{method}.sub"].int()).abs()
    assert difference.max() <= 2
