"""DISTS, with random weights in VGG16's shape, against the paper's equations in NumPy."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.errors import WeightsError
from nsarm_cli.perceptual.convolutions import VGG16, Convolutions
from nsarm_cli.perceptual.dists import Dists, l2_pool

FEATURES = (3, 4, 5, 6, 7, 8)


@pytest.fixture
def weights(vgg16: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return vgg16


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def other(pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    return (pictures + 0.2 * noise).clamp(-1, 1)


def test_equal_pictures_are_at_no_distance(weights, pictures):
    assert Dists(weights).each(pictures, pictures).abs().max() < 1e-6


def test_the_distance_is_one_minus_the_weighted_similarities_of_the_paper(weights, pictures):
    changed = other(pictures)
    statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)

    def taps(picture):
        unit = (picture + 1) / 2
        features = Convolutions(weights, VGG16, l2_pool)((unit - statistics[0]) / statistics[1])
        return [tap[0].numpy().astype(np.float64) for tap in (unit, *features)]

    a, b = (weights[name].double().numpy() for name in ("alpha", "beta"))
    total, start = a.sum() + b.sum(), 0
    expected = 1.0
    for x, y in zip(taps(changed[:1]), taps(pictures[:1]), strict=True):
        for channel in range(len(x)):
            u, v = x[channel].ravel(), y[channel].ravel()
            place = start + channel
            texture = (2 * u.mean() * v.mean() + 1e-6) / (u.mean() ** 2 + v.mean() ** 2 + 1e-6)
            covariance = np.cov(u, v, bias=True)
            structure = (2 * covariance[0, 1] + 1e-6) / (covariance.trace() + 1e-6)
            expected -= (a[place] * texture + b[place] * structure) / total
        start += len(x)
    assert start == sum(FEATURES)
    assert float(Dists(weights).each(changed[:1], pictures[:1])) == pytest.approx(
        expected, abs=1e-5
    )


def test_each_picture_of_a_batch_is_on_its_own(weights, pictures):
    changed, network = other(pictures), Dists(weights)
    single = torch.cat([network.each(changed[i : i + 1], pictures[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(network.each(changed, pictures), single)


def test_the_pooling_keeps_a_constant_inside_and_is_the_root_of_a_weighted_mean_square():
    inside = l2_pool(torch.full((1, 2, 8, 8), 3.0), 2)[..., 1:, 1:]
    torch.testing.assert_close(inside, torch.full_like(inside, 3.0))
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 2
    assert l2_pool(impulse, 2)[0, 0, 2, 2] == pytest.approx(2 * 0.5)


@pytest.mark.parametrize("name", ["conv.12.bias", "beta"])
def test_a_missing_tensor_is_named(weights, tmp_path, name):
    del weights[name]
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=rf"x\.safetensors: lacks the tensor '{name}'; make"):
        Dists.from_file(tmp_path / "x.safetensors")


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(WeightsError, match="alpha has the shape"):
        Dists(weights | {"alpha": torch.ones(5)})
    with pytest.raises(WeightsError, match=r"conv\.1 has the shape"):
        Dists(weights | {"conv.1.weight": torch.ones(4, 9, 3, 3)})
