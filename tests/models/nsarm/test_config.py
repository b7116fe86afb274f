import dataclasses
import json

import pytest
import torch

from nsarm_cli.models.nsarm.config import NSARM_8B, NSARM_NANO, PRESETS, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel


def parameter_count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_a_configuration_survives_json(config):
    assert NsarmConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_guidance_per_scale_survives_json():
    sampling = dataclasses.replace(NSARM_8B.sampling, guidance=tuple(float(k) for k in range(13)))
    config = dataclasses.replace(NSARM_8B, sampling=sampling)
    assert NsarmConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_kind_of_network_is_refused():
    values = json.loads(json.dumps(NSARM_NANO.to_dict()))
    values["transformation"]["kind"] = "magic"
    with pytest.raises(ValueError, match="magic"):
        NsarmConfig.from_dict(values)


@pytest.mark.parametrize("part", ["transformer", "autoencoder", "transformation"])
def test_parts_that_do_not_fit_together_are_refused(part):
    changes = {"transformer": {"inputs": 7}, "autoencoder": {"channels": 7}}
    change = changes.get(part, {"sides": (2, 5)})
    with pytest.raises(ValueError, match="nsarm-nano"):
        dataclasses.replace(
            NSARM_NANO, **{part: dataclasses.replace(getattr(NSARM_NANO, part), **change)}
        )


def test_the_presets_enlarge_four_times():
    assert {config.scale for config in PRESETS.values()} == {4}


def test_nsarm_8b_has_the_published_number_of_parameters():
    """8,760 million is the paper's; transformer and transformation network together."""
    with torch.device("meta"):
        model = NsarmModel(NSARM_8B)
    transformer = parameter_count(model.transformer) + parameter_count(model.conditioner)
    assert transformer == 8_375_791_824
    assert parameter_count(model.transformation) == 385_103_600
    assert transformer + parameter_count(model.transformation) == 8_760_895_424
    assert parameter_count(model.autoencoder.encoder) == 33_139_598
    assert parameter_count(model.autoencoder.decoder) == 48_484_611
    assert [parameter_count(block) for block in model.transformer.blocks] == [205_589_020] * 40
