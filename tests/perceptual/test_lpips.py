"""LPIPS, with random weights in the real networks' shapes."""

import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.errors import WeightsError
from nsarm_cli.perceptual.lpips import PerceptualDistance

VGG_CHANNELS = (4, 4, 6, 6, 8, 8, 8, 10, 10, 10, 10, 10, 10)
VGG_TAPS = (1, 3, 6, 9, 12)


def vgg() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    tensors = {}
    for i, (inputs, outputs) in enumerate(zip((3, *VGG_CHANNELS), VGG_CHANNELS, strict=False)):
        kernel = torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"conv.{i}.weight"] = kernel * (2 / (9 * inputs)) ** 0.5
        tensors[f"conv.{i}.bias"] = torch.zeros(outputs)
    for i, conv in enumerate(VGG_TAPS):
        tensors[f"lin.{i}"] = torch.rand(VGG_CHANNELS[conv], generator=generator)
    return tensors


@pytest.fixture(params=["alexnet", "vgg"])
def weights(request, alexnet):
    return alexnet if request.param == "alexnet" else vgg()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def noisy(pictures, amount):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    return pictures + amount * noise


def test_equal_pictures_are_at_no_distance(weights, pictures):
    assert float(PerceptualDistance(weights)(pictures, pictures)) == 0


def test_the_distance_grows_with_the_noise_and_is_symmetric(weights, pictures):
    distance = PerceptualDistance(weights)
    near, far = (float(distance(noisy(pictures, a), pictures)) for a in (0.02, 0.2))
    assert 0 < near < far
    assert float(distance(pictures, noisy(pictures, 0.2))) == pytest.approx(far, rel=1e-5)


def test_the_distance_of_a_batch_is_the_mean_of_its_pictures(weights, pictures):
    distance = PerceptualDistance(weights)
    other = noisy(pictures, 0.1)
    single = [float(distance(other[i : i + 1], pictures[i : i + 1])) for i in range(2)]
    assert float(distance(other, pictures)) == pytest.approx(sum(single) / 2, rel=1e-5)


def test_each_layer_adds_its_channels_by_their_weights(weights, pictures):
    """Layer by layer: a head's weights scale its part, and the parts sum up."""
    other = noisy(pictures, 0.1)
    lins = [name for name in weights if name.startswith("lin.")]
    parts = []
    for kept in lins:
        only = {
            n: t if n == kept or n not in lins else torch.zeros_like(t) for n, t in weights.items()
        }
        parts.append(float(PerceptualDistance(only)(other, pictures)))
    assert len(parts) == 5
    assert min(parts) > 0
    assert float(PerceptualDistance(weights)(other, pictures)) == pytest.approx(
        sum(parts), rel=1e-5
    )
    tripled = weights | {lins[0]: 3 * weights[lins[0]]}
    more = float(PerceptualDistance(tripled)(other, pictures))
    assert more == pytest.approx(sum(parts) + 2 * parts[0], rel=1e-5)


def test_the_gradient_reaches_the_first_picture_only_and_lowers_the_distance(weights, pictures):
    distance = PerceptualDistance(weights)
    start = noisy(pictures, 0.1).requires_grad_()
    target = pictures.clone().requires_grad_()
    before = distance(start, target)
    before.backward()
    assert target.grad is None
    assert start.grad is not None
    step = 1e-3 * start.grad / start.grad.abs().max()
    assert distance(start.detach() - step, pictures) < before.detach()


def test_nothing_in_it_is_trained_and_everything_moves_with_it(weights):
    distance = PerceptualDistance(weights)
    assert list(distance.parameters()) == []
    held = sum(tensor.numel() for tensor in weights.values()) + 6  # and the picture's statistics
    assert sum(buffer.numel() for buffer in distance.buffers()) == held
    assert {buffer.device.type for buffer in distance.to("meta").buffers()} == {"meta"}


def test_a_file_gives_what_its_tensors_give(alexnet, alexnet_file, pictures):
    other = noisy(pictures, 0.1)
    from_file = PerceptualDistance.from_file(alexnet_file)
    assert torch.equal(from_file(other, pictures), PerceptualDistance(alexnet)(other, pictures))


@pytest.mark.parametrize("name", ["conv.2.bias", "lin.4"])
def test_a_missing_tensor_is_named(alexnet, tmp_path, name):
    del alexnet[name]
    save_file(alexnet, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=rf"x\.safetensors: lacks the tensor '{name}'; make"):
        PerceptualDistance.from_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv.1.weight", (12, 9, 5, 5)),
        ("conv.2.weight", (16,)),
        ("conv.0.bias", (9,)),
        ("lin.3", (5,)),
    ],
)
def test_a_misshapen_tensor_is_named(alexnet, tmp_path, name, shape):
    save_file(alexnet | {name: torch.zeros(shape)}, tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=rf"{name.removesuffix('.bias').removesuffix('.weight')}"
    ):
        PerceptualDistance.from_file(tmp_path / "x.safetensors")


def test_a_network_of_another_depth_is_refused(alexnet, tmp_path):
    del alexnet["conv.4.weight"]
    save_file(alexnet, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="with 4 convolutions are neither AlexNet"):
        PerceptualDistance.from_file(tmp_path / "x.safetensors")


def test_a_missing_or_broken_file_is_named(tmp_path):
    (tmp_path / "broken").write_text("no tensors here")
    for name in ("absent", "broken"):
        with pytest.raises(WeightsError, match=rf"{name}: cannot be read as safetensors .*; make"):
            PerceptualDistance.from_file(tmp_path / name)
