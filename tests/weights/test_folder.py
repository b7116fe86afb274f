"""A model folder is read strictly, and what is wrong with it is said."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.config import PRESETS, NsarmConfig
from nsarm_cli.models.nsarm.model import cast_for_inference
from nsarm_cli.weights.folder import load_model, read_config
from nsarm_cli.weights.shards import PlannedTensor, index_text, split, write_shard

CPU = torch.device("cpu")
MAPS = Path("/proc/self/maps")


def change(folder, edit):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def shard(folder, limit, dtype=torch.float32):
    """Replace the one weights file of a folder by shards, written as the converter does."""
    single = folder / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(single).items()}
    single.unlink()

    def planned(name):
        return PlannedTensor(
            name, dtype, tuple(tensors[name].shape), lambda: iter([tensors[name].flatten()])
        )

    files = split([planned(name) for name in tensors], limit)
    for name, group in files.items():
        write_shard(folder / name, group, lambda _: None)
    if len(files) > 1:
        (folder / "model.safetensors.index.json").write_text(index_text(files))
    return sorted(files)


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
    with pytest.raises(
        WeightsError, match=f'family "{name}" is unknown; known are "nsarm" and "varsr"'
    ):
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


@pytest.mark.parametrize("limit", [1, 50_000, 10**9])
def test_a_folder_of_shards_loads_as_one_file_does(folder, micro, limit):
    names = shard(folder, limit)
    assert {1: len(micro.state_dict()), 10**9: 1}.get(limit, len(names)) == len(names)
    assert (len(names) > 1) == (folder / "model.safetensors.index.json").exists()
    wanted = micro.state_dict()
    loaded = load_model(folder).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())


def test_shards_are_no_larger_than_asked_unless_a_tensor_is(folder):
    names = shard(folder, 50_000)
    assert len(names) > 3
    for name in names:
        tensors = load_file(folder / name)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 50_000 or len(tensors) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_for_inference_every_tensor_has_its_final_type(folder, micro, dtype):
    shard(folder, 50_000, torch.bfloat16)
    loaded = load_model(folder, CPU, dtype)
    wanted = cast_for_inference(micro, dtype).state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == wanted[name].dtype
        assert torch.equal(tensor, wanted[name].bfloat16().to(tensor.dtype))


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells where files are mapped")
def test_tensors_in_their_final_type_stay_in_the_mapped_file(folder):
    names = shard(folder, 200_000)
    loaded = load_model(folder, CPU, torch.float32)
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in MAPS.read_text().splitlines()
        if line.endswith(tuple(names))
    ]
    for tensor in loaded.state_dict().values():
        assert any(begin <= tensor.data_ptr() < end for begin, end in ranges)


def test_a_missing_shard_is_named(folder):
    names = shard(folder, 50_000)
    (folder / names[1]).unlink()
    with pytest.raises(WeightsError, match=rf"{names[1]}: is missing, though .* \(1 of \d+ files"):
        load_model(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    names = shard(folder, 50_000)
    (folder / names[1]).write_bytes((folder / names[0]).read_bytes())
    with pytest.raises(WeightsError, match=rf"{names[1]}: has .*, which another shard has too"):
        load_model(folder)


def header(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_header(path, values, data):
    text = json.dumps(values).encode() if isinstance(values, dict) else values
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


NAME = "transformer.start"


@pytest.mark.parametrize(
    "edit",
    [
        lambda head: head[NAME].update(shape=[1, 1, 31]),
        lambda head: head[NAME].update(shape=[1, 1, -32]),
        lambda head: head[NAME].update(shape=[2**62, 2**62]),
        lambda head: head[NAME].update(dtype="F99"),
        lambda head: head[NAME].update(data_offsets=[0, 10**15]),
        lambda head: head[NAME].update(data_offsets=[128, 0]),
        lambda head: head[NAME].pop("dtype"),
        lambda head: head.update({NAME: 3}),
    ],
)
def test_a_header_that_lies_is_an_error_of_the_file(folder, edit):
    path = folder / "model.safetensors"
    values, data = header(path)
    edit(values)
    with_header(path, values, data)
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize("length", [0, 7, 2**20, 2**40, 2**63])
def test_a_header_of_a_false_length_is_an_error_of_the_file(folder, length):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(length.to_bytes(8, "little") + raw[8:])
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_model(folder)


def test_a_huge_header_is_refused_without_being_read(folder):
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write((10**12).to_bytes(8, "little"))
        file.truncate(10**12 + 8)  # takes no room on the disk
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.int8, "int8"), (torch.int64, "int64")])
def test_weights_of_a_type_that_weights_do_not_have_are_refused(folder, dtype, kind):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[NAME] = tensors[NAME].to(dtype)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=rf"{NAME} has numbers of type torch\.{kind}, which"):
        load_model(folder)
