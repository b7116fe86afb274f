import pytest
import torch

from nsarm_cli.models.nsarm.autoencoder import Autoencoder, AutoencoderConfig

PLAIN = AutoencoderConfig(6, 32, (1, 2), encoder_blocks=1, decoder_blocks=2, groups=8)
FOLDED = AutoencoderConfig(6, 32, (1,), 1, 1, unshuffle=4, groups=8)


@pytest.mark.parametrize(("config", "stride"), [(PLAIN, 2), (FOLDED, 4)], ids=["plain", "folded"])
@pytest.mark.parametrize("size", [(16, 16), (8, 20)])
def test_latents_are_smaller_by_the_stride_and_pictures_come_back_at_size(config, stride, size):
    autoencoder = Autoencoder(config)
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = autoencoder.encode(pictures)
    assert config.stride == stride
    assert latents.shape == (2, 6, size[0] // stride, size[1] // stride)
    decoded = autoencoder.decode(50 * latents)
    assert decoded.shape == pictures.shape
    assert decoded.abs().max() <= 1


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="not a multiple of 4"):
        Autoencoder(FOLDED).encode(torch.zeros(1, 3, 16, 18))


def test_groups_must_divide_the_width():
    with pytest.raises(ValueError, match="not a multiple of 32 groups"):
        AutoencoderConfig(6, 40, (1,), 1, 1)
