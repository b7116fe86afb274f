"""Resizing by strips is Pillow's resize of the whole picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.imaging import resample
from nsarm_cli.imaging.resample import resize_rows
from nsarm_cli.imaging.rows import Rows


def whole(x, height, width):
    planes = [
        np.asarray(Image.fromarray(p.numpy()).resize((width, height), Image.Resampling.LANCZOS))
        for p in x
    ]
    return torch.from_numpy(np.stack(planes)).clamp(-1, 1)


@pytest.mark.parametrize("size", [(100, 80), (37, 23), (211, 160), (333, 20), (1, 1), (150, 81)])
@pytest.mark.parametrize("strip", [1, 16, 150])
def test_strips_join_without_a_seam(monkeypatch, size, strip):
    monkeypatch.setattr(resample, "STRIP", strip)
    x = torch.rand(2, 150, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows = resize_rows(Rows(150, 80, iter(x.split(7, dim=1))), *size)
    result = torch.cat(list(rows.strips), dim=1)
    assert result.shape == (2, *size)
    # Pillow takes the box as float32, so positions differ by a ten-thousandth of a pixel.
    assert (result - whole(x, *size)).abs().max() < 2e-3


def test_the_same_size_changes_nothing():
    rows = Rows.of(torch.zeros(3, 4, 5))
    assert resize_rows(rows, 4, 5) is rows


def test_only_the_rows_that_a_strip_needs_are_read():
    read = []

    def strips():
        for i in range(100):
            read.append(i)
            yield torch.zeros(1, 10, 4)

    first = next(resize_rows(Rows(1000, 4, strips()), 500, 2).strips)
    assert first.shape == (1, 64, 2)
    assert len(read) < 20
