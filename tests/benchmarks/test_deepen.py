"""A deeper model computes what the model did, and its new blocks can learn."""

import pytest
import torch

from nsarm_cli.models.nsarm.config import NSARM_NANO, NSARM_TINY
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.weights.folder import load_model

BLOCKS = NSARM_NANO.autoencoder.decoder_blocks + 1, NSARM_NANO.transformation.blocks + 2


@pytest.fixture
def nano():
    torch.manual_seed(0)
    return initialise(NsarmModel(NSARM_NANO))


def test_a_deeper_model_computes_the_same_to_the_last_bit(script, nano, tmp_path):
    write_model(nano, tmp_path / "shallow")
    counts = ["--decoder", str(BLOCKS[0]), "--transformation", str(BLOCKS[1])]
    script("deepen").main([str(tmp_path / "shallow"), str(tmp_path / "deep"), *counts])
    deep = load_model(tmp_path / "deep")

    assert (deep.config.autoencoder.decoder_blocks, deep.config.transformation.blocks) == BLOCKS
    lr = torch.rand(1, 3, 64, 64) * 2 - 1
    feature = torch.randn(1, 24, 16, 16)
    with torch.no_grad():
        assert torch.equal(deep.decode(feature), nano.decode(feature))
        for ours, theirs in zip(
            deep.preliminary_residuals(lr), nano.preliminary_residuals(lr), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_new_blocks_have_a_gradient(script, nano):
    deep = script("deepen").deepen(nano, *BLOCKS)
    deep.decode(torch.randn(1, 24, 16, 16)).square().sum().backward()
    block = deep.autoencoder.decoder.levels[0][-1]
    assert block.conv2.weight.grad.abs().max() > 0


def test_fewer_blocks_and_other_kinds_of_models_are_refused(script, nano):
    deepened = script("deepen").deepened
    with pytest.raises(ValueError, match="nsarm-nano would lose blocks"):
        deepened(nano.config, 1, 9)
    with pytest.raises(ValueError, match="tiny is a model of another kind"):
        deepened(NSARM_TINY, 9, 9)
