"""A lean decoder gives the pictures of the plain one, with less memory."""

import pytest
import torch

from nsarm_cli.models.core.convolution import ResidualBlock
from nsarm_cli.models.core.lean import make_lean
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.autoencoder import Decoder as NsarmDecoder
from nsarm_cli.models.varsr.tokenizer import Decoder as VarsrDecoder
from nsarm_cli.models.varsr.tokenizer import TokenizerConfig

PARTS = {
    "nsarm": lambda: NsarmDecoder(AutoencoderConfig(5, 32, (1, 2, 4), 1, 2)),
    "nsarm, unfolded": lambda: NsarmDecoder(AutoencoderConfig(5, 32, (1,), 1, 2, unshuffle=4)),
    "varsr": lambda: VarsrDecoder(TokenizerConfig(channels=5, width=32, multipliers=(1, 2))),
}


@pytest.fixture(params=PARTS)
def decoder(request):
    torch.manual_seed(0)
    made = PARTS[request.param]()
    for name, parameter in made.named_parameters():
        if "norm" in name:  # as a trained norm has them: neither 1 nor 0
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    return made


@pytest.fixture
def latents():
    return torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(2))


def test_the_picture_is_the_same_but_for_rounding(decoder, latents):
    plain = decoder(latents)
    before = latents.clone()
    make_lean(decoder)
    lean = decoder(latents)
    assert not torch.equal(lean, plain)  # or the plain one ran
    assert (lean - plain).abs().max() < 3e-5 * plain.abs().max()
    assert torch.equal(latents, before)


@pytest.mark.parametrize("decoder", ["nsarm", "nsarm, unfolded"], indirect=True)
def test_a_picture_does_not_depend_on_the_threads(decoder, latents):
    make_lean(decoder)
    picture = decoder(latents)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert torch.equal(decoder(latents), picture)
    finally:
        torch.set_num_threads(threads)


def test_a_block_does_with_each_picture_of_a_batch_what_it_does_alone():
    block = ResidualBlock(64, 32, 32)
    make_lean(torch.nn.Sequential(block))
    x = torch.randn(3, 64, 9, 5, generator=torch.Generator().manual_seed(3))
    alone = [block(sample[None].clone()) for sample in x]
    assert torch.equal(block(x), torch.cat(alone))


def test_with_gradients_or_another_type_it_runs_as_defined(decoder, latents, monkeypatch):
    def refuse(*_):
        raise AssertionError("the lean way was taken")

    monkeypatch.setattr("nsarm_cli.models.core.lean.convolve", refuse)
    make_lean(decoder)
    with torch.enable_grad():
        decoder(latents).sum().backward()
    assert decoder.conv_in.weight.grad is not None
    with torch.no_grad():
        assert decoder.double()(latents.double()).dtype == torch.float64
        with pytest.raises(AssertionError, match="lean way"):
            decoder.float()(latents)


def test_names_of_weights_stay(decoder):
    names = list(decoder.state_dict())
    make_lean(decoder)
    assert list(decoder.state_dict()) == names


def test_other_decoders_of_the_process_are_not_concerned(latents):
    first, second = PARTS["nsarm"](), PARTS["nsarm"]()
    second.load_state_dict(first.state_dict())
    plain = second(latents)
    make_lean(first)
    first(latents)
    assert torch.equal(second(latents), plain)
