import pytest
import torch

from nsarm_cli.models.varsr.quantiser import Quantiser, blend_of_scale

GRIDS = ((1, 1), (2, 2), (3, 3), (5, 5))


@pytest.fixture
def quantiser() -> Quantiser:
    generator = torch.Generator().manual_seed(0)
    module = Quantiser(16, 4, 4).requires_grad_(requires_grad=False)
    for parameter in module.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize(
    ("scales", "blends"),
    [
        (4, [0, 1, 2, 3]),
        (10, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
    ],
)
def test_scales_share_the_convolutions_as_published(scales, blends):
    """With ten scales two are equally near to two convolutions and belong to the later."""
    assert [blend_of_scale(k, scales, 4) for k in range(scales)] == blends


def test_an_entry_of_the_codebook_is_its_own_nearest(quantiser):
    indices = torch.arange(16).view(1, 16)
    assert torch.equal(quantiser.nearest(quantiser.codes(indices, (4, 4))), indices)


def test_codes_and_the_last_residual_add_up_to_the_latents(quantiser):
    latents = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    tokens = quantiser.tokenise(latents, GRIDS)
    left = tokens.last_residual - quantiser.codes(tokens.indices[-1], (5, 5))
    torch.testing.assert_close(tokens.feature + left, latents)


def test_indices_compose_to_the_same_sum(quantiser):
    latents = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    tokens = quantiser.tokenise(latents, GRIDS)
    codes = [quantiser.codes(i, grid) for i, grid in zip(tokens.indices, GRIDS, strict=True)]
    torch.testing.assert_close(quantiser.pyramid(GRIDS).compose(codes), tokens.feature)
