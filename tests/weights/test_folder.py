"""A model folder is read strictly, and what is wrong with it is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.config import PRESETS, NsarmConfig
from nsarm_cli.weights.folder import load_model, read_config


def change(folder, edit):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_the_model_of_a_folder_is_the_one_that_was_written(folder, micro):
    loaded = load_model(folder)
    assert loaded.config == micro.config
    wanted = micro.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(t, wanted[name]) for name, t in loaded.state_dict().items())


def test_nothing_of_it_stays_without_memory_and_all_of_it_can_be_trained(folder):
    loaded = load_model(folder)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_files_become_float32(folder):
    path = folder / "model.safetensors"
    halved = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(halved, path)
    for name, tensor in load_model(folder).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, halved[name].float())


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_survives_being_written(name):
    config = PRESETS[name]
    assert NsarmConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_folder_without_a_configuration_is_no_model_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"is not a model folder \(config\.json: No such file"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["car", "", None, 3])
def test_another_family_is_named(folder, name):
    change(folder, lambda values: values.update(family=name))
    with pytest.raises(WeightsError, match=f'family "{name}" is unknown; known is "nsarm"'):
        read_config(folder)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"7", b'"nsarm"', b"null", b"\xff", b'{"family": "nsarm"}']
)
def test_what_is_no_configuration_is_an_error_of_the_file(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(
        WeightsError, match=r"config\.json: does not describe a model \(.*; write it"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: config.pop("window"),
        lambda config: config.pop("sampling"),
        lambda config: config.update(windows=3),
        lambda config: config.update(sides=[]),
        lambda config: config.update(sides=[0, 1]),
        lambda config: config.update(sides=None),
        lambda config: config.update(autoencoder=[1, 2]),
        lambda config: config.update(autoencoder=None),
        lambda config: config.update(transformation="convolutions"),
        lambda config: config["transformation"].pop("kind"),
        lambda config: config["transformation"].update(kind="magic"),
        lambda config: config["transformation"].update(kind=[]),
        lambda config: config["transformation"].update(sides=[2, 5]),
        lambda config: config["transformation"].update(channels=9),
        lambda config: config["transformation"].update(width=33),
        lambda config: config["autoencoder"].update(groups=0),
        lambda config: config["autoencoder"].update(width="wide"),
        lambda config: config["transformer"].update(width=-32),
        lambda config: config["transformer"].update(depth="deep"),
        lambda config: config["transformer"].update(inputs=31),
        lambda config: config["sampling"].update(temperature=-1),
    ],
)
def test_a_configuration_that_describes_no_model_is_an_error_of_the_file(folder, edit):
    change(folder, lambda values: edit(values["config"]))
    with pytest.raises(
        WeightsError, match=r"config\.json: does not describe a model \(.*; write it"
    ):
        load_model(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_weights_are_named(folder, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[:-100], "text": b"weights" * 9}[damage])
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read .*; get the file"):
        load_model(folder)


def test_weights_of_another_model_are_named_by_their_tensors(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["transformer.start"]
    tensors["transformer.head.out.bias"] = torch.zeros(7)
    tensors["transformer.mystery"] = torch.zeros(1)
    save_file(tensors, path)
    with pytest.raises(WeightsError) as error:
        load_model(folder)
    assert str(path) in str(error.value)
    assert (
        "missing: transformer.start; unknown: transformer.mystery; "
        "misshapen: transformer.head.out.bias is (7,) instead of (64,)"
    ) in str(error.value)


def test_weights_of_another_depth_are_refused(folder):
    change(folder, lambda values: values["config"]["transformer"].update(depth=1))
    with pytest.raises(WeightsError, match=r"unknown: transformer\.blocks\.1\..* and \d+ more"):
        load_model(folder)
