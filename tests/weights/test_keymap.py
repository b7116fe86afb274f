"""Every name of the authors' files has one place in our models, and every place one name."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.config import NSARM_8B, NSARM_NANO, NSARM_TINY, NSARM_WIDE
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.weights.keymap import (
    autoencoder_from_upstream,
    autoencoder_to_upstream,
    transformer_from_upstream,
    transformer_to_upstream,
)
from nsarm_cli.weights.strict import load_strictly

GOLDENS = Path(__file__).parents[1] / "goldens"
MASK = 2.0 ** torch.arange(13, -1, -1)


def inventory(name: str):
    with gzip.open(GOLDENS / f"{name}_names.json.gz") as file:
        return json.load(file)


def without_memory(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


@pytest.fixture
def transformer() -> dict[str, Tensor]:
    """The tiny transformer's file: names and shapes, no numbers."""
    return without_memory(inventory("tiny"))


@pytest.fixture
def autoencoder() -> dict[str, Tensor]:
    return without_memory({short: shape for _, short, shape in inventory("vae_d56")})


@pytest.mark.parametrize(
    ("name", "config", "blocks_per_chunk", "entries"),
    [("nsarm_8b", NSARM_8B, 5, 1812), ("tiny", NSARM_TINY, 2, 1056), ("wide", NSARM_WIDE, 1, 1014)],
)
def test_every_name_of_the_transformer_file_has_a_place_and_comes_back(
    name, config, blocks_per_chunk, entries
):
    theirs = inventory(name)
    assert len(theirs) == entries
    ours = transformer_from_upstream(without_memory(theirs), config, name)
    with torch.device("meta"):
        model = NsarmModel(config)
    rest = {n: t for n, t in model.state_dict().items() if n.startswith("autoencoder.")}
    load_strictly(model, ours | rest, name)
    back = transformer_to_upstream(ours, config, name, blocks_per_chunk)
    assert shapes_of(back) == theirs


def test_the_8b_file_holds_the_published_number_of_parameters():
    ours = transformer_from_upstream(without_memory(inventory("nsarm_8b")), NSARM_8B, "file")
    assert sum(tensor.numel() for tensor in ours.values()) == 8_760_895_424


@pytest.mark.parametrize("spelling", [0, 1], ids=["module", "short"])
def test_every_name_of_the_autoencoder_file_has_a_place_in_both_spellings(spelling):
    entries = inventory("vae_d56")
    theirs = without_memory({entry[spelling]: entry[2] for entry in entries})
    ours = autoencoder_from_upstream(theirs, NSARM_8B, "file")
    assert sum(tensor.numel() for tensor in ours.values()) == 81_624_209
    with torch.device("meta"):
        model = NsarmModel(NSARM_8B).autoencoder
    load_strictly(model, {n.removeprefix("autoencoder."): t for n, t in ours.items()}, "file")
    back = autoencoder_to_upstream(ours, NSARM_8B, "file")
    assert shapes_of(back) == {short: shape for _, short, shape in entries}


def test_numbers_come_back_to_where_they_were(transformer, autoencoder):
    """Each tensor is filled with a number of its own."""
    transformer, autoencoder = (
        {
            name: torch.full(tensor.shape, float(i))
            for i, (name, tensor) in enumerate(file.items())
            if not name.endswith(("zero_k_bias", "mask")) and tensor.numel() < 300_000
        }
        | {n: t for n, t in file.items() if t.numel() >= 300_000}
        for file in (transformer, autoencoder)
    )
    ours = transformer_from_upstream(transformer, NSARM_TINY, "file")
    back = transformer_to_upstream(ours, NSARM_TINY, "file", blocks_per_chunk=2)
    ours = autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")
    back |= autoencoder_to_upstream(ours, NSARM_TINY, "file")
    for name, tensor in (transformer | autoencoder).items():
        if not tensor.is_meta:
            assert torch.equal(back.pop(name), tensor)
    left = {name for name, tensor in back.items() if not tensor.is_meta}
    assert all(name.endswith(("zero_k_bias", "mask")) for name in left)


def test_renaming_copies_nothing():
    tensors = without_memory(inventory("tiny"))
    tensors["head.weight"] = torch.zeros(112, 256)
    tensors["block_chunks.1.module.0.sa.scale_mul_1H11"] = torch.zeros(1, 4, 1, 1)
    ours = transformer_from_upstream(tensors, NSARM_TINY, "file")
    assert ours["transformer.head.out.weight"].data_ptr() == tensors["head.weight"].data_ptr()
    temperature = ours["transformer.blocks.2.attention.log_temperature"]
    assert temperature.shape == (4,)
    theirs = tensors["block_chunks.1.module.0.sa.scale_mul_1H11"]
    assert temperature.data_ptr() == theirs.data_ptr()


def test_constants_may_be_absent(transformer, autoencoder):
    for file in (transformer, autoencoder):
        for name in [n for n in file if n.endswith(("zero_k_bias", "lfq.mask"))]:
            del file[name]
    assert len(transformer_from_upstream(transformer, NSARM_TINY, "file")) == 1047
    assert len(autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")) == 224


def test_constants_must_be_what_the_authors_code_puts_there(transformer, autoencoder):
    bias, mask = "block_chunks.1.module.0.sa.zero_k_bias", "quantizer.lfq.mask"
    transformer[bias], autoencoder[mask] = torch.zeros(256), MASK.long()
    transformer_from_upstream(transformer, NSARM_TINY, "file")
    autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")
    transformer[bias], autoencoder[mask] = torch.full((256,), 0.1), MASK.flip(0)
    with pytest.raises(WeightsError, match=rf"file: {bias} is not the constant"):
        transformer_from_upstream(transformer, NSARM_TINY, "file")
    with pytest.raises(WeightsError, match=rf"file: {mask} is not the constant"):
        autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")


@pytest.mark.parametrize(
    "name", ["cfg_uncond", "block_chunks.1.module.1.ffn.fc2.bias", "head_nm.ada_lin.1.weight"]
)
def test_a_faulty_entry_of_the_transformer_file_is_named(transformer, name):
    shape = tuple(transformer[name].shape)
    transformer[name] = torch.empty(1, 2, 3, device="meta")
    with pytest.raises(WeightsError) as error:
        transformer_from_upstream(transformer, NSARM_TINY, "file")
    assert f"misshapen: {name} is (1, 2, 3) instead of {shape}" in str(error.value)
    del transformer[name]
    with pytest.raises(WeightsError, match=f"file: .*missing: {name}"):
        transformer_from_upstream(transformer, NSARM_TINY, "file")


@pytest.mark.parametrize("name", ["stranger", "block_chunks.2.module.0.ada_gss", "cfg_uncond.x"])
def test_an_unknown_entry_is_named(transformer, autoencoder, name):
    transformer[name] = autoencoder[name] = torch.empty(1, device="meta")
    with pytest.raises(WeightsError, match=f"unknown: {name}"):
        transformer_from_upstream(transformer, NSARM_TINY, "file")
    with pytest.raises(WeightsError, match=f"unknown: {name}"):
        autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")


def test_a_faulty_entry_of_the_autoencoder_file_is_named(autoencoder):
    name = "decoder.up.3.upsample.conv.weight"
    autoencoder["decoder.up.0.block.1.norm1.bias"] = torch.empty(7, device="meta")
    del autoencoder[name]
    with pytest.raises(WeightsError) as error:
        autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")
    assert f"missing: {name}" in str(error.value)
    assert "decoder.up.0.block.1.norm1.bias is (7,) instead of (128,)" in str(error.value)


def test_a_tensor_in_both_spellings_is_refused(autoencoder):
    autoencoder["encoder.conv_in.conv.bias"] = torch.empty(128, device="meta")
    with pytest.raises(WeightsError, match=r"encoder\.conv_in\.bias in both spellings"):
        autoencoder_from_upstream(autoencoder, NSARM_TINY, "file")


def test_weights_of_another_model_are_refused(transformer):
    with pytest.raises(WeightsError, match="tensors do not belong to this model"):
        transformer_from_upstream(transformer, NSARM_WIDE, "file")


def test_going_back_needs_every_tensor(transformer):
    ours = transformer_from_upstream(transformer, NSARM_TINY, "file")
    del ours["conditioner.lift.bias"]
    with pytest.raises(WeightsError, match=r"missing: conditioner\.lift\.bias"):
        transformer_to_upstream(ours, NSARM_TINY, "file")


def test_a_model_without_text_has_no_counterpart(transformer):
    with pytest.raises(ValueError, match=r"has no counterpart in the authors"):
        transformer_from_upstream(transformer, NSARM_NANO, "file")
