"""Winograd's convolution is a convolution, whatever the size of the map."""

import pytest
import torch
import torch.nn.functional as F

from nsarm_cli.models.core.winograd import ONCE, TWICE, convolve, transform_weight

SIZES = [(1, 1), (4, 4), (5, 3), (8, 260), (270, 9), (33, 300)]


def convolved(weight, x, kind=ONCE):
    """Through `convolve`, with rows read from a tensor and written to one."""
    out = torch.full((weight.shape[0], *(kind.places * side for side in x.shape[1:])), torch.nan)
    order = []

    def read(first, last, band):
        assert band.shape == (x.shape[0], last - first, x.shape[2])
        order.append((first, last))
        band.copy_(x[:, first:last])

    def write(first, last, band):
        out[:, first:last] = band

    convolve(weight, tuple(x.shape[1:]), read, write, kind)
    return out, order


@pytest.mark.parametrize("channels", [(3, 5), (257, 4)])
@pytest.mark.parametrize("size", SIZES)
def test_the_result_is_that_of_the_definition(channels, size):
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = channels
    x = torch.randn(inputs, *size, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    want = F.conv2d(x.double()[None], weight.double(), padding=1)[0]
    got, order = convolved(weight, x)
    assert (got - want).abs().max() < 3e-5 * want.abs().max()
    assert [row for first, last in order for row in range(first, last)] == list(range(size[0]))


@pytest.mark.parametrize("channels", [(3, 5), (257, 4)])
@pytest.mark.parametrize("size", [*SIZES, (2, 330), (25, 5)])
def test_after_an_enlargement_it_is_that_of_the_enlarged_map(channels, size):
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = channels
    x = torch.randn(inputs, *size, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    enlarged = F.interpolate(x.double()[None], scale_factor=2, mode="nearest")
    want = F.conv2d(enlarged, weight.double(), padding=1)[0]
    got, order = convolved(weight, x, TWICE)
    assert (got - want).abs().max() < 3e-5 * want.abs().max()
    assert [row for first, last in order for row in range(first, last)] == list(range(size[0]))


def test_a_constant_map_keeps_its_sum_inside():
    weight = torch.full((1, 1, 3, 3), 1 / 9)
    got, _ = convolved(weight, torch.ones(1, 12, 12))
    assert got[0, 1:-1, 1:-1].sub(1).abs().max() < 1e-6
    assert got[0, 0, 0].item() == pytest.approx(4 / 9, abs=1e-6)


def test_a_weight_at_the_origin_of_its_transform_is_the_corner_tap():
    # The first of the points is 0, and a polynomial at 0 is its first coefficient.
    weight = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    transformed = transform_weight(weight)
    assert transformed.shape == (36, 2, 3)
    assert torch.allclose(transformed[0], weight[:, :, 0, 0] / 16)
    assert torch.allclose(transformed[-1], weight[:, :, 2, 2])
