import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid, area, bilinear
from nsarm_cli.models.nsarm.bsq import quantise

GRIDS = [((1, 1), (2, 2), (5, 5), (8, 8)), ((1, 2), (3, 2), (4, 6), (12, 7))]


@pytest.fixture(params=GRIDS, ids=["square", "not-square"])
def pyramid(request) -> ResidualPyramid:
    return ResidualPyramid(request.param)


@pytest.fixture
def target(pyramid) -> torch.Tensor:
    return torch.randn(2, 4, *pyramid.size, generator=torch.Generator().manual_seed(0))


def test_codes_and_the_last_residual_add_up_to_the_target(pyramid, target):
    residuals, codes = pyramid.decompose(target, quantise)
    remainder = residuals[-1] - codes[-1]
    torch.testing.assert_close(pyramid.compose(codes) + remainder, target)


def test_without_quantisation_the_pyramid_loses_nothing(pyramid, target):
    _, codes = pyramid.decompose(target, lambda residual: residual)
    torch.testing.assert_close(pyramid.compose(codes), target)


def test_each_residual_is_what_the_coarser_codes_left(pyramid, target):
    residuals, codes = pyramid.decompose(target, quantise)
    for k in range(1, len(codes)):
        left = target - pyramid.compose(codes[:k])
        torch.testing.assert_close(residuals[k], area(left, pyramid.grids[k]))


def test_codes_of_a_prefix_of_scales_do_not_depend_on_the_rest(pyramid, target):
    _, codes = pyramid.decompose(target, quantise)
    short = ResidualPyramid((*pyramid.grids[:2], pyramid.size))
    _, first = short.decompose(target, quantise)
    for a, b in zip(codes[:2], first[:2], strict=True):
        assert torch.equal(a, b)


def test_shrinking_by_area_keeps_the_mean_of_whole_cells():
    x = torch.randn(1, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    small = area(x, (4, 2))
    torch.testing.assert_close(small[0, :, 1, 1], x[0, :, 3:6, 4:8].mean((1, 2)))
    assert area(x, (12, 8)) is x


def test_enlarging_keeps_constants_and_sizes():
    x = torch.full((1, 2, 3, 5), 0.25)
    large = bilinear(x, (7, 11))
    assert large.shape == (1, 2, 7, 11)
    torch.testing.assert_close(large, torch.full_like(large, 0.25))
    assert bilinear(x, (3, 5)) is x


def test_composing_nothing_is_refused(pyramid):
    with pytest.raises(ValueError, match="at least one scale"):
        pyramid.compose([])
