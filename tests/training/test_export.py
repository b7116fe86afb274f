"""From a run to a model for others: LoRA, averages, the model card."""

import dataclasses
import errno
import json
import os
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nsarm_cli.cli.main import main
from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training import lora, record
from nsarm_cli.training.card import model_card
from nsarm_cli.training.config import Stage1Config
from nsarm_cli.training.initialise import initialise
from nsarm_cli.weights.folder import load_model


@pytest.fixture
def lora_command(write_settings, photos):
    """Arguments of a short stage 2 with LoRA."""
    pytest.importorskip("peft")

    def make(out, **changes):
        settings = write_settings(steps=3, lora=4, lora_scale=2.0, lr=1e-2, **changes)
        return ("stage2", "--data", photos, "--val", photos, "--config", settings, "--out", out)

    return make


def run_block(model, seed=0):
    """What the first block's feed-forward and attention layers give."""
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(seed))
    block = model.transformer.blocks[0]
    return block.feed_forward.down(block.feed_forward.up(x)), block.attention.qkv(x)


def test_an_adapted_model_begins_as_the_model_it_was(micro):
    pytest.importorskip("peft")
    before = run_block(micro)
    lora.adapt(micro, 4, 1.0, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(before, run_block(micro), strict=True))
    trained = [name for name, p in micro.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name and name.startswith("transformer.blocks.") for name in trained)


def test_only_small_matrices_learn_and_merged_they_give_what_the_adapter_gave(
    lora_command, nsarm_train, saved_in, micro, micro_folder, tmp_path
):
    out = tmp_path / "run"
    assert nsarm_train(*lora_command(out)).code == 0
    assert not (out / "model.safetensors").exists()
    learned = load_file(out / "adapter.safetensors")
    assert any(float(t.abs().max()) > 0 for name, t in learned.items() if "lora_B" in name)
    # A checkpoint holds what learns, and nothing of the model that it learns beside.
    assert all("lora_" in name for name in saved_in(out).tensors)

    assert nsarm_train("export", out, tmp_path / "merged", "--precision", "fp32").code == 0
    merged = load_model(tmp_path / "merged")
    lora.adapt(micro, 4, 2.0, torch.float32)
    micro.load_state_dict(learned, strict=False)
    with torch.no_grad():
        for one, other in zip(run_block(micro), run_block(merged), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert merged.state_dict().keys() == load_model(micro_folder).state_dict().keys()
    changed = {
        name
        for name, tensor in merged.state_dict().items()
        if not torch.equal(tensor, load_model(micro_folder).state_dict()[name])
    }
    assert changed
    assert all(name.startswith("transformer.blocks.") for name in changed)


def test_lora_resumes(lora_command, nsarm_train, interrupt_during, tmp_path, monkeypatch):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert nsarm_train(*lora_command(whole)).code == 0
    interrupt_during(2)
    assert "after step 2" in nsarm_train(*lora_command(parted)).err
    monkeypatch.undo()
    assert nsarm_train(*lora_command(parted)).code == 0
    one, other = (load_file(run / "adapter.safetensors") for run in (whole, parted))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_weights_are_kept_small(micro, lora_command, nsarm_train, tmp_path):
    lora.adapt(micro, 4, 1.0, torch.bfloat16)
    kinds = {p.dtype for p in micro.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert micro.transformer.blocks[0].attention.qkv.weight.dtype == torch.bfloat16
    out = tmp_path / "run"
    assert nsarm_train(*lora_command(out, precision="bf16", recompute="full")).code == 0


def test_without_peft_lora_says_how_to_get_it(
    write_settings, photos, nsarm_train, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "peft", None)
    given = ("--data", photos, "--config", write_settings(lora=4), "--out", tmp_path / "run")
    refused = nsarm_train("stage2", *given)
    assert refused.code == 6
    assert "lora needs PEFT, which is not installed (peft); pip install 'nsarm[train]'" in (
        refused.err
    )


def test_an_adapter_of_another_model_is_refused(micro_config, lora_command, nsarm_train, tmp_path):
    out = tmp_path / "run"
    assert nsarm_train(*lora_command(out)).code == 0
    transformer = dataclasses.replace(micro_config.transformer, depth=1)
    model = initialise(NsarmModel(dataclasses.replace(micro_config, transformer=transformer)))
    lora.adapt(model, 4, 1.0, torch.float32)
    with pytest.raises(ConfigError, match="belongs to another model or rank"):
        lora.merge(model, out / "adapter.safetensors")


def test_the_average_is_exported_when_asked_for(nsarm_train, write_settings, photos, tmp_path):
    out = tmp_path / "run"
    command = ("stage1", "--data", photos, "--config")
    assert nsarm_train(*command, write_settings(ema=0.5), "--out", out).code == 0
    assert nsarm_train("export", out, tmp_path / "x", "--ema", "--precision", "fp32").code == 0
    exported = load_file(tmp_path / "x" / "model.safetensors")
    average, last = (load_file(out / f"{name}.safetensors") for name in ("average", "model"))
    assert all(torch.equal(exported[name], average[name]) for name in average)
    differs = {n for n in last if not torch.equal(last[n], average[n])}
    assert differs
    assert all(name.startswith("transformation.") for name in differs)

    assert nsarm_train(*command, write_settings(), "--out", tmp_path / "none").code == 0
    refused = nsarm_train("export", tmp_path / "none", tmp_path / "y", "--ema")
    assert refused.code == 6
    assert "kept no average; train with ema above 0" in refused.err


def test_the_card_tells_of_every_step_and_of_no_folder_of_this_machine(
    nsarm_train, write_settings, photos, tmp_path
):
    previous = None
    for stage in ("tokenizer", "stage1"):
        start = [] if previous is None else ["--model", previous]
        out = tmp_path / stage
        given = ("--data", photos, "--val", photos, "--config", write_settings(steps=2))
        assert nsarm_train(stage, *given, "--out", out, *start).code == 0
        previous = out
    assert nsarm_train("export", previous, tmp_path / "mine").code == 0

    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: nsarm\npipeline_tag: image-to-image\n")
    assert card.index("## stage1") < card.index("## tokenizer")
    assert card.count("Trained on: `photos`.") == 2
    assert card.count("\nlr = 0.001\n") == 2
    told = json.loads((tmp_path / "stage1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| validation.psnr | {told['validation.psnr']:.6g} |" in card
    assert "stored as bfloat16" in card
    assert '\nmodel = "tokenizer"\n' in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/me/photos", "`photos`"),
        ("shards/{000..012}.tar", "`{000..012}.tar`"),
        ("https://b/a.tar?X-Amz-Signature=SECRET", "`a.tar`"),
        ("https://b/{00..12}.tar?token=SECRET/x#SECRET/y", "`{00..12}.tar`"),
        ("https://b/a.tar#SECRET", "`a.tar`"),
        ("https://me:SECRET@b/c/a.tar", "`a.tar`"),
        ("http://me:SECRET@b", "an address"),
        ("http://b?key=SECRET/a.tar", "an address"),
        (
            "pipe:curl -s https://h/x.tar -H 'Authorization: Bearer SECRET'",
            "the output of a command",
        ),
    ],
)
def test_the_card_tells_no_credentials_of_the_data(micro_config, tmp_path, word, shown):
    record.begin(tmp_path, Stage1Config(), "", [word], ["photos", word])
    card = model_card(tmp_path, micro_config, "x", 1, "bfloat16")
    assert f"Trained on: {shown}.\n" in card
    assert f"Validated on: `photos`, {shown}.\n" in card
    assert "SECRET" not in card


def test_a_model_without_records_has_a_short_card(nsarm_train, micro_folder, tmp_path):
    assert nsarm_train("export", micro_folder, tmp_path / "x").code == 0
    assert "How it was trained is not recorded" in (tmp_path / "x" / "README.md").read_text()


def test_what_is_in_the_way_of_an_export_stays(nsarm_train, micro_folder, tmp_path):
    out = tmp_path / "x"
    out.mkdir()
    (out / "README.md").write_text("my notes")
    refused = nsarm_train("export", micro_folder, out)
    assert refused.code == 6
    assert "README.md: exists already; give another folder" in refused.err
    assert [p.read_text() for p in out.iterdir()] == ["my notes"]


@pytest.mark.parametrize(("place", "name"), [(2, "config.json"), (3, "README.md")])
def test_a_disk_that_fills_during_an_export_is_told(
    nsarm_train, micro_folder, tmp_path, monkeypatch, place, name
):
    flushed = []

    def fill(_file):
        flushed.append(None)
        if len(flushed) == place:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    refused = nsarm_train("export", micro_folder, tmp_path / "x")
    assert refused.code == 6
    assert f"{name}: cannot be written (No space left on device); free space" in refused.err
    assert name not in {path.name for path in (tmp_path / "x").iterdir()}


def test_an_exported_model_enlarges_and_is_evaluated(nsarm_train, micro_folder, photos, tmp_path):
    out = tmp_path / "x"
    assert nsarm_train("export", micro_folder, out, "--temperature", "0.25").code == 0
    picture = photos / "0.png"
    enlarged = tmp_path / "large.png"
    assert main(["upscale", str(picture), "-o", str(enlarged), "--model", str(out)]) == 0
    with Image.open(enlarged) as image:
        assert image.size == (448, 384)
    report = tmp_path / "report"
    judged = ["--dataset", str(photos), "--model", str(out), "--limit", "1", "--out", str(report)]
    assert main(["eval", *judged, "--measures", "niqe"]) == 0
    assert json.loads((report / "results.json").read_text())


def test_activations_kept_in_memory_change_nothing(nsarm_train, write_settings, photos, tmp_path):
    learned = []
    for offload in (False, True):
        out = tmp_path / str(offload)
        settings = write_settings(steps=2, offload=offload, recompute="full")
        assert nsarm_train("stage2", "--data", photos, "--config", settings, "--out", out).code == 0
        learned.append(load_file(out / "model.safetensors"))
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())
