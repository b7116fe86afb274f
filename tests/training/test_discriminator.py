"""The discriminator scores patches, keeps its slope bounded, and teaches one side at a time."""

import pytest
import torch

from nsarm_cli.training.decoder import balanced
from nsarm_cli.training.discriminator import PatchDiscriminator, SpectralConv2d


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(8)


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1 for _ in range(2))


def test_the_largest_singular_value_is_one_whatever_the_size_of_the_weight():
    torch.manual_seed(0)
    layer = SpectralConv2d(5, 7, 3, bias=False)
    x = torch.randn(1, 5, 9, 9)
    first = layer(x)
    with torch.no_grad():
        layer.weight.mul_(30)
    torch.testing.assert_close(layer(x), first)
    # Unit vectors as patches: the answers are the rows of the normalised matrix.
    patches = torch.eye(45).reshape(45, 5, 3, 3)
    assert float(torch.linalg.svdvals(layer(patches).detach().flatten(1))[0]) == pytest.approx(
        1, abs=1e-5
    )


def test_a_patch_of_eight_pixels_has_a_score(discriminator, pictures):
    assert discriminator(pictures[0]).shape == (2, 1, 4, 6)


def test_the_maker_learns_from_realism_and_the_discriminator_does_not(discriminator, pictures):
    made = pictures[0].requires_grad_()
    discriminator.realism(made).backward()
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_the_discriminator_learns_to_tell_and_the_maker_does_not(discriminator, pictures):
    real, made = pictures[0] * 0.1, pictures[1].requires_grad_()
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss = discriminator.real_or_made(real, made)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert made.grad is None
    assert losses[0] == pytest.approx(2, abs=0.2)
    assert losses[-1] < 1
    assert discriminator(real).mean() > discriminator(made).mean()


def layer_and_picture() -> tuple[torch.Tensor, torch.Tensor]:
    """Two outputs, each the product of its own weight and input."""
    last = torch.tensor([1.0, 1.0], requires_grad=True)
    return last, last * torch.tensor([3.0, 4.0])


def test_balanced_losses_pull_at_the_last_layer_with_the_lengths_asked_for():
    last, picture = layer_and_picture()
    main, other = picture[0] * 2, picture[1] * 1000
    loss = balanced(main, other, picture, last, 0.5)
    assert float(loss.detach()) == float(main.detach())
    loss.backward()
    torch.testing.assert_close(last.grad, torch.tensor([6.0, 3.0]))


def test_a_loss_without_a_slope_leaves_the_main_one_alone():
    last, picture = layer_and_picture()
    balanced(picture.sum(), (0 * picture).sum(), picture, last, 0.5).backward()
    assert last.grad.tolist() == [3.0, 4.0]
