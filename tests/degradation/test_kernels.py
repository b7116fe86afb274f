"""Blur kernels, the filter and USM sharpening. Pictures in [0, 1]."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.degradation.kernels import (
    MIXTURE,
    SIZES,
    BlurRanges,
    anisotropic_kernel,
    draw_blur_kernel,
    draw_final_sinc,
    filter2d,
    reflect_pad,
    sinc_kernel,
    usm_sharpen,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_filter2d(x: Tensor, kernel: Tensor) -> Tensor:
    """The definition: every output is the sum of the kernel times the mirrored pixels."""
    reach = kernel.shape[0] // 2
    padded = F.pad(x[None].double(), (reach,) * 4, mode="reflect")[0]
    height, width = x.shape[-2:]
    out = torch.zeros_like(x, dtype=torch.float64)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[0]):
            out += kernel[i, j].double() * padded[:, i : i + height, j : j + width]
    return out


def test_drawn_kernels_are_odd_sum_to_one_and_survive_half_a_turn():
    generator = rng()
    ranges = BlurRanges(sigma=(0.2, 3.0), sinc_probability=0.2)
    for _ in range(300):
        kernel = draw_blur_kernel(generator, ranges)
        assert kernel.dtype == torch.float32
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] in SIZES
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(kernel, kernel.rot90(2), rtol=0, atol=1e-7)


def test_a_gaussian_kernel_has_the_covariance_it_was_asked_for():
    sigma, angle = (3.0, 1.5), 0.6
    kernel = anisotropic_kernel(41, sigma, angle).double()
    axis = torch.arange(41, dtype=torch.float64) - 20
    y, x = axis[:, None], axis[None, :]
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    ).double()
    expected = turn @ torch.diag(torch.tensor(sigma).double() ** 2) @ turn.T
    measured = torch.stack([(kernel * p * q).sum() for p in (x, y) for q in (x, y)]).view(2, 2)
    # The window ends at 6.7 standard deviations.
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-4)


def test_a_generalised_kernel_with_beta_one_is_gaussian():
    plain = anisotropic_kernel(15, (2.0, 1.0), 0.3)
    assert torch.equal(plain, anisotropic_kernel(15, (2.0, 1.0), 0.3, "generalised", 1.0))


def test_a_larger_beta_flattens_the_top_and_cuts_the_tail():
    for shape in ("generalised", "plateau"):
        soft = anisotropic_kernel(21, (3.0, 3.0), shape=shape, beta=1.0)
        hard = anisotropic_kernel(21, (3.0, 3.0), shape=shape, beta=4.0)
        assert hard[10, 11] / hard[10, 10] > soft[10, 11] / soft[10, 10]
        assert hard[10, 18] / hard[10, 10] < soft[10, 18] / soft[10, 10]


def test_a_plateau_falls_to_half_at_one_sigma():
    kernel = anisotropic_kernel(21, (3.0, 3.0), shape="plateau", beta=1.7)
    assert (kernel[10, 13] / kernel[10, 10]).item() == pytest.approx(0.5, abs=1e-5)


def test_a_sinc_kernel_passes_low_and_stops_high_frequencies():
    kernel = sinc_kernel(21, math.pi / 2)
    response = torch.fft.fft2(F.pad(kernel, (0, 43, 0, 43))).abs()
    assert response[0, 0].item() == pytest.approx(1, abs=1e-5)
    assert response[0, 8] > 0.85  # pi / 4
    assert response[0, 24] < 0.15  # 3 pi / 4
    assert kernel.min() < 0  # it rings


def test_families_are_drawn_by_their_shares():
    """Counts what a kernel shows of its family: sinc is negative, anisotropic has a direction."""
    assert sum(share for _, _, share in MIXTURE) == pytest.approx(1)
    generator, draws = rng(3), 2000
    ranges = BlurRanges(sigma=(0.5, 3.0))
    kernels = [draw_blur_kernel(generator, ranges) for _ in range(draws)]
    negative = sum(bool(k.min() < 0) for k in kernels) / draws
    skewed = sum(not torch.allclose(k, k.rot90(1), rtol=1e-3, atol=1e-9) for k in kernels) / draws
    sizes = Counter(k.shape[0] for k in kernels)
    # Four standard errors: sqrt(p (1 - p) / 2000) is 0.007, 0.010 and 0.0074.
    assert negative == pytest.approx(0.1, abs=0.028)
    assert skewed == pytest.approx(0.9 * 0.31, abs=0.04)
    for size in SIZES:
        assert sizes[size] / draws == pytest.approx(1 / 8, abs=0.03)


def test_the_final_sinc_is_drawn_four_times_in_five():
    generator = rng(1)
    drawn = [draw_final_sinc(generator, 0.8) for _ in range(2000)]
    share = sum(kernel is not None for kernel in drawn) / 2000
    assert share == pytest.approx(0.8, abs=0.036)  # four standard errors


def test_a_delta_kernel_changes_nothing():
    x = torch.rand(3, 33, 20, generator=rng())
    delta = torch.zeros(9, 9)
    delta[4, 4] = 1
    torch.testing.assert_close(filter2d(x, delta), x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [7, 13, 21])
def test_the_filter_equals_its_definition(size: int):
    """With a kernel of no symmetry, so that a flip or a shift would show."""
    x = torch.rand(3, 37, 50, generator=rng())
    kernel = torch.rand(size, size, generator=rng(1))
    kernel /= kernel.sum()
    expected = slow_filter2d(x, kernel)
    torch.testing.assert_close(filter2d(x, kernel).double(), expected, rtol=0, atol=3e-6)


def test_a_kernel_padded_with_zeros_gives_the_same_picture():
    """Kernels keep their own size, where the reference implementation pads all to 21."""
    x = torch.rand(3, 40, 31, generator=rng())
    kernel = sinc_kernel(9, 2.0)
    padded = F.pad(kernel, (6, 6, 6, 6))
    torch.testing.assert_close(filter2d(x, kernel), filter2d(x, padded), rtol=0, atol=2e-6)


def test_padding_mirrors_as_torch_does_and_goes_on_where_torch_stops():
    x = torch.rand(3, 12, 15, generator=rng())
    assert torch.equal(reflect_pad(x, 10), F.pad(x[None], (10,) * 4, mode="reflect")[0])
    row = torch.tensor([[0.0, 1.0, 2.0]])
    assert reflect_pad(row, 5)[0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    assert torch.equal(reflect_pad(torch.ones(3, 1, 1), 4), torch.ones(3, 9, 9))


def test_usm_leaves_flat_and_faint_pictures_and_steepens_edges():
    flat = torch.full((3, 64, 64), 0.4)
    torch.testing.assert_close(usm_sharpen(flat), flat, rtol=0, atol=1e-6)
    faint = flat + 8 / 255 * (torch.rand(3, 64, 64, generator=rng()) - 0.5)
    torch.testing.assert_close(usm_sharpen(faint), faint, rtol=0, atol=1e-6)

    edge = flat.clone()
    edge[..., 32:] = 0.6
    sharp = usm_sharpen(edge)
    assert (sharp[..., 32] - sharp[..., 31]).min() > 0.25
    assert sharp.min() >= 0
    assert sharp.max() <= 1
    # Two reaches of 25 pixels from the edge (detail, then mask) nothing can change.
    wide = torch.full((3, 64, 160), 0.4)
    wide[..., 80:] = 0.6
    torch.testing.assert_close(usm_sharpen(wide)[..., :29], wide[..., :29], rtol=0, atol=1e-5)


def test_usm_measures_detail_against_a_gaussian_of_eight_pixels():
    """A vertical edge makes the definition one-dimensional; flat sides need no mirror."""
    x = torch.full((3, 64, 128), 0.4)
    x[..., 64:] = 0.6
    axis = torch.arange(-25, 26).double()
    weights = torch.exp(-(axis**2) / (2 * 8.0**2))
    weights /= weights.sum()
    padded = F.pad(x[0, 0].double()[None], (25, 25), mode="replicate")[0]
    blurred = padded.unfold(0, 51, 1) @ weights
    detail = x[0, 0].double() - blurred
    mask = F.pad((detail.abs() > 10 / 255).double()[None], (25, 25), mode="replicate")[0]
    mask = mask.unfold(0, 51, 1) @ weights
    expected = x[0, 0].double() + mask * 0.5 * detail
    torch.testing.assert_close(usm_sharpen(x)[0, 30].double(), expected, rtol=0, atol=1e-5)


def test_usm_of_a_batch_is_usm_of_each():
    x = torch.rand(2, 3, 40, 56, generator=rng())
    torch.testing.assert_close(usm_sharpen(x)[1], usm_sharpen(x[1]), rtol=0, atol=1e-6)
