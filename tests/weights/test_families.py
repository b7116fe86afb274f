"""From a name or a folder to a model that upscales."""

import dataclasses
import json
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.weights import locate
from nsarm_cli.weights.entries import FileEntry, ModelEntry
from nsarm_cli.weights.families import load_resolver

CPU = torch.device("cpu")


def resolve(resolver, seed=0):
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return resolver.resolve(lr, [torch.Generator().manual_seed(seed)], Sampling())


def test_a_folder_runs_as_the_model_in_memory_does(folder, micro):
    resolver = load_resolver(str(folder), CPU, torch.float32)
    assert (resolver.scale, resolver.window, resolver.overlap) == (4, 16, 4)
    made = resolve(resolver)
    assert made.shape == (1, 3, 64, 64)
    torch.testing.assert_close(made, resolve(NsarmResolver(micro.eval())), atol=1e-5, rtol=0)
    assert not torch.equal(made, resolve(resolver, seed=1))


def test_in_bf16_the_heavy_weights_are_bf16_and_the_head_is_not(folder):
    resolver = load_resolver(str(folder), CPU, torch.bfloat16)
    made = resolve(resolver)
    assert made.dtype == torch.float32
    assert made.isfinite().all()
    model = resolver.model
    assert model.autoencoder.encoder.conv_in.weight.dtype == torch.bfloat16
    assert model.transformer.blocks[0].attention.qkv.weight.dtype == torch.bfloat16
    assert model.transformer.head.out.weight.dtype == torch.float32


def test_a_loaded_model_is_for_inference_only(folder):
    model = load_resolver(str(folder), CPU, torch.float32).model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_name_of_the_catalogue_is_the_folder_of_its_files(folder, monkeypatch):
    path = PurePosixPath(folder / "config.json")
    entry = ModelEntry("micro-name", "nsarm", (FileEntry("config", path),))
    monkeypatch.setattr(locate, "find_model", {"micro-name": entry}.__getitem__)
    assert load_resolver("micro-name", CPU, torch.float32).window == 16


def test_a_known_model_that_is_not_here_is_an_error_that_says_where_to_look(monkeypatch, tmp_path):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"nsarm-8b is not ready .* nsarm weights download"):
        load_resolver("nsarm-8b", CPU, torch.float32)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(WeightsError, match=r"model 'absent' is unknown: .*nsarm-nano"):
        load_resolver("absent", CPU, torch.float32)


@pytest.mark.parametrize("path", ["micro/model.safetensors", "absent/folder"])
def test_a_path_that_is_no_folder_is_named(folder, path):
    with pytest.raises(
        WeightsError, match=f"{path}: is not a folder; give a known model's name, a"
    ):
        load_resolver(str(folder.parent / path), CPU, torch.float32)


def test_a_model_that_needs_a_prompt_is_refused(micro, tmp_path):
    transformer = dataclasses.replace(micro.config.transformer, cross=True)
    config = dataclasses.replace(micro.config, text_width=128, transformer=transformer)
    save_file(NsarmModel(config).state_dict(), tmp_path / "model.safetensors")
    text = json.dumps({"family": "nsarm", "config": config.to_dict()})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="needs the features of a prompt"):
        load_resolver(str(tmp_path), CPU, torch.float32)


def test_loading_a_folder_loads_neither_the_compiler_nor_the_library_of_the_hub(folder):
    """Drawing an embedding on the meta device once loaded the compiler: a second at every start."""
    code = (
        "import sys, torch; from nsarm_cli.weights.families import load_resolver; "
        f"load_resolver({str(folder)!r}, torch.device('cpu'), torch.bfloat16); "
        "sys.exit(bool({'torch._dynamo', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
