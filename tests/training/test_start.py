"""A run may start from parts of several models."""

import dataclasses

import pytest
import torch

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.training.start import starting_model

PARTS = ("autoencoder", "transformation", "transformer")


@pytest.fixture
def other(micro_config, tmp_path) -> NsarmModel:
    torch.manual_seed(7)
    model = initialise(NsarmModel(micro_config))
    write_model(model, tmp_path / "other")
    return model


def is_same(one, two) -> bool:
    return all(torch.equal(t, two.state_dict()[name]) for name, t in one.state_dict().items())


@pytest.mark.parametrize("part", PARTS)
def test_a_named_part_comes_from_its_folder_and_the_rest_from_the_model(
    part, micro, other, micro_folder, tmp_path
):
    config = dataclasses.replace(
        Stage2Config(model=str(micro_folder)), **{f"{part}_from": str(tmp_path / "other")}
    )
    model = starting_model(config)
    for name in PARTS:
        source = other if name == part else micro
        assert is_same(getattr(model, name), getattr(source, name)), name
    assert is_same(model.conditioner, (other if part == "transformer" else micro).conditioner)


def test_a_model_that_is_neither_preset_nor_folder_is_named():
    with pytest.raises(ConfigError, match=r"absent: neither a model .* --model$"):
        starting_model(Stage2Config(model="absent"))
