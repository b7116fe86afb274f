"""Pictures survive the way to tensors and back; resizing is Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.imaging.tensors import resize_bicubic, to_image, to_tensor, to_u8


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 2), (16, 16)])
def test_a_picture_comes_back_unchanged(size):
    image = picture(*size)
    tensor = to_tensor(image)
    assert tensor.shape == (3, *size)
    assert tensor.dtype == torch.float32
    assert np.array_equal(np.asarray(to_image(tensor)), np.asarray(image))


def test_all_levels_come_back_unchanged_and_span_minus_one_to_one():
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2))
    tensor = to_tensor(levels)
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(np.asarray(to_image(tensor)), np.asarray(levels))


def test_channels_stay_in_the_order_red_green_blue():
    tensor = to_tensor(Image.new("RGB", (1, 1), (255, 0, 0)))
    assert tensor.flatten().tolist() == [1, -1, -1]


def test_a_picture_of_another_mode_is_refused():
    with pytest.raises(ValueError, match="mode RGB, got L"):
        to_tensor(Image.new("L", (2, 2)))


def test_levels_are_rounded_to_the_nearest_and_clamped():
    levels = torch.tensor([10.0, 10.4, 10.6, 254.7, -3.0, 400.0])
    assert to_u8(levels / 127.5 - 1).tolist() == [10, 10, 11, 255, 0, 255]


def test_a_tensor_is_left_alone_by_its_conversion():
    x = torch.full((3, 2, 2), 0.3)
    to_u8(x)
    assert torch.equal(x, torch.full((3, 2, 2), 0.3))


SIZES = [
    ((1, 1), (4, 4)),
    ((5, 3), (20, 12)),
    ((31, 17), (40, 90)),
    ((31, 17), (31, 60)),
    ((64, 48), (9, 5)),
    ((20, 20), (20, 20)),
]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resizing_equals_pillows_within_the_levels_pillow_rounds_to(old, new):
    """Pillow rounds after each of its two passes, so its bytes may be one level away."""
    image = picture(*old)
    ours = to_u8(resize_bicubic(to_tensor(image)[None], new))[0].permute(1, 2, 0).numpy()
    pillows = np.asarray(image.resize(new[::-1], Image.Resampling.BICUBIC))
    assert ours.shape == pillows.shape
    assert np.abs(ours.astype(int) - pillows).max() <= 1


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """Write down the definition: Keys' kernel with a = -0.5, widened when shrinking."""

    def kernel(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        near = 1.5 * t**3 - 2.5 * t**2 + 1
        far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        return np.where(t < 1, near, np.where(t < 2, far, 0))

    ratio = old / new
    centers = (np.arange(new) + 0.5) * ratio
    weights = kernel((np.arange(old) + 0.5 - centers[:, None]) / max(ratio, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resizing_follows_its_formula_without_rounding(old, new):
    x = to_tensor(picture(*old))[None]
    rows, columns = (bicubic_matrix(a, b) for a, b in zip(old, new, strict=True))
    expected = (rows @ (x.double().numpy() @ columns.T).clip(-1, 1)).clip(-1, 1)
    np.testing.assert_allclose(resize_bicubic(x, new).numpy(), expected, atol=2e-6)


def test_resizing_treats_batch_and_channels_apart():
    x = torch.stack([to_tensor(picture(6, 5, seed)) for seed in (1, 2)])
    both = resize_bicubic(x, (24, 20))
    assert torch.equal(both[1:], resize_bicubic(x[1:], (24, 20)))
    assert torch.equal(both[0, 2], resize_bicubic(x[:1].flip(1), (24, 20))[0, 0])


def test_resizing_keeps_the_number_type():
    assert resize_bicubic(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16), (8, 8)).dtype == (
        torch.bfloat16
    )
