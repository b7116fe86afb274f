import pytest
import torch

from nsarm_cli.models.nsarm.conditioner import ConstantConditioner, TextConditioner


@pytest.fixture
def conditioner(make_model) -> TextConditioner:
    return make_model(text=True).conditioner


@pytest.fixture
def captions() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 256, generator=generator) for length in (6, 2, 1)]


def test_captions_of_unequal_length_are_conditioned_as_each_alone(conditioner, captions):
    together = conditioner(captions)
    for i, caption in enumerate(captions):
        alone = conditioner([caption])
        torch.testing.assert_close(together.pooled[i], alone.pooled[0])
        torch.testing.assert_close(together.context[i, : len(caption)], alone.context[0])
        assert together.mask[i].sum() == len(caption)
        assert together.mask[i, : len(caption)].all()
        assert alone.mask is None


def test_the_unconditional_caption_has_the_length_of_the_prompt(conditioner, captions):
    for caption, unconditional in zip(
        captions, conditioner.unconditional_like(captions), strict=True
    ):
        assert torch.equal(unconditional, conditioner.unconditional[: len(caption)])


def test_pooling_is_a_weighted_mean_of_values(conditioner, captions):
    """Equal tokens pool to the same vector however many there are."""
    token = captions[0][:1]
    one, many = conditioner([token]), conditioner([token.expand(9, -1)])
    torch.testing.assert_close(one.pooled, many.pooled)


def test_the_size_of_text_features_does_not_matter(conditioner, captions):
    """They are normalised first."""
    doubled = conditioner([2 * caption for caption in captions])
    torch.testing.assert_close(doubled.pooled, conditioner(captions).pooled, atol=1e-4, rtol=0)


def test_without_text_every_window_has_the_same_condition():
    conditioner = ConstantConditioner(8)
    conditioner.constant.data.normal_()
    condition = conditioner(3)
    assert torch.equal(condition.pooled, conditioner.constant.expand(3, 8))
    assert condition.context is None
