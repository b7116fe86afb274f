"""Rows on their way: bands come out as if the picture were in memory."""

import pytest
import torch

from nsarm_cli.imaging.rows import RowReader, Rows


def picture(height, width=5):
    return torch.arange(3.0 * height * width).reshape(3, height, width)


def in_strips(x, *sizes):
    return Rows(x.shape[1], x.shape[2], iter(x.split(list(sizes), dim=1)))


def test_a_picture_in_memory_passes_by_whole():
    x = picture(200)
    rows = Rows.of(x)
    assert (rows.height, rows.width) == (200, 5)
    assert torch.equal(torch.cat(list(rows.strips), 1), x)


@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (3, 9, 1, 7)])
def test_overlapping_bands_are_those_of_the_picture(sizes):
    x = picture(20)
    reader = RowReader(in_strips(x, *sizes))
    for top, bottom in [(0, 4), (0, 1), (2, 9), (2, 10), (7, 8), (15, 20), (19, 20)]:
        assert torch.equal(reader.read(top, bottom), x[:, top:bottom])


def test_what_lies_above_is_forgotten():
    reader = RowReader(in_strips(picture(20), *(1,) * 20))
    reader.read(10, 12)
    assert len(reader._held) == 2
    with pytest.raises(ValueError, match="not within"):
        reader.read(3, 5)


def test_rows_below_the_picture_are_refused():
    with pytest.raises(ValueError, match="not within 0 to 20"):
        RowReader(in_strips(picture(20), 20)).read(18, 21)
