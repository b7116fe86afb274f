"""Grids show pictures side by side, each row enlarged to the first."""

import numpy as np
import torch
from PIL import Image

from nsarm_cli.training.grid import Gallery


def test_rows_stand_above_each_other_and_small_ones_are_enlarged_by_repeating(tmp_path):
    large = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)
    small = torch.tensor([[-1.0, 1.0], [0.0, 3.0]]).expand(2, 3, 2, 2)
    gallery = Gallery()
    gallery.show(large, small)
    gallery.write(tmp_path / "grid.png")

    with Image.open(tmp_path / "grid.png") as image:
        pixels = np.asarray(image)

    assert pixels.shape == (8, 8, 3)
    second = ((large[1] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels[:4, 4:], second)
    repeated = np.kron([[0, 255], [128, 255]], np.ones((2, 2)))
    for column in (pixels[4:, :4], pixels[4:, 4:]):
        np.testing.assert_array_equal(column, np.stack([repeated] * 3, axis=-1))


def test_parts_of_a_batch_stand_side_by_side_up_to_a_number(tmp_path):
    pictures = torch.linspace(-1, 1, 3 * 3 * 2 * 2).view(3, 3, 2, 2)
    whole, parts = Gallery(2), Gallery(2)
    whole.show(pictures, pictures)
    for picture in pictures:
        parts.show(picture[None], picture[None])
    whole.write(tmp_path / "whole.png")
    parts.write(tmp_path / "parts.png")
    with Image.open(tmp_path / "whole.png") as one, Image.open(tmp_path / "parts.png") as other:
        assert one.size == (4, 4)
        assert one.tobytes() == other.tobytes()
