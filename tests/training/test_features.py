"""Captions become features in files once; training reads them back, and export carries the text."""

import dataclasses
import json
import shutil

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nsarm_cli.cli.main import main
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.training import encode
from nsarm_cli.training.captions import StoredFeatures
from nsarm_cli.training.config import PROMPT
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model

CAPTIONS = {"0": "a red dog", "1": "the cat", "2": "a red dog"}  # "3" has none


@pytest.fixture
def captioned(photos):
    for name, text in CAPTIONS.items():
        (photos / f"{name}.txt").write_text(text)
    return photos


@pytest.fixture
def texted_folder(micro_config, tmp_path):
    """A micro model with text of the width of the encoder, without a prompt."""
    torch.manual_seed(0)
    transformer = dataclasses.replace(micro_config.transformer, cross=True)
    config = dataclasses.replace(micro_config, text_width=256, transformer=transformer)
    folder = tmp_path / "texted"
    write_model(initialise(NsarmModel(config)), folder)
    return folder


@pytest.fixture
def features(nsarm_train, text_encoder_folder):
    def make(data, out, *more):
        options = ("--text-encoder", text_encoder_folder, "--precision", "fp32", *more)
        return nsarm_train("features", "--data", data, "--out", out, *options)

    return make


@pytest.fixture
def encoder(text_encoder_folder):
    return TextEncoder.load(text_encoder_folder, torch.device("cpu"), torch.float32)


def keys(folder):
    found = []
    for path in sorted(folder.glob("features-*.safetensors")):
        with safe_open(path, "pt") as file:
            found += file.keys()
    return found


def test_each_text_is_encoded_once_and_read_back_as_it_was(features, captioned, encoder, tmp_path):
    out = tmp_path / "features"
    done = features(captioned, out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    assert "3 captions encoded, 0 were there already" in done.err
    assert len(keys(out)) == 3
    texts = ["a red dog", "the cat", PROMPT]
    stored = StoredFeatures(out).encode(texts)
    for own, wanted in zip(stored, encoder.encode(texts), strict=True):
        assert torch.equal(own, wanted.bfloat16().float())


def test_what_is_there_stays_and_what_is_new_is_added(features, captioned, tmp_path):
    out = tmp_path / "features"
    features(captioned, out)
    before = {path: path.read_bytes() for path in out.glob("*.safetensors")}
    (captioned / "3.txt").write_text("a cat with a dog")
    assert "1 captions encoded, 3 were there already" in features(captioned, out).err
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(set(keys(out))) == 4
    assert "0 captions encoded, 4 were there already" in features(captioned, out).err


def test_short_captions_are_encoded_when_asked_for(features, photos, tmp_path):
    lines = [
        {"image_path": str(photos / "0.png"), "long_caption": "a red dog", "text": "dog"},
        {"image_path": str(photos / "1.png"), "text": "cat"},
    ]
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    features(listed, tmp_path / "long")
    stored = StoredFeatures(tmp_path / "long")
    assert ("a red dog" in stored, "dog" in stored, "cat" in stored) == (True, False, True)
    features(listed, tmp_path / "both", "--short", "--prompt", "the image")
    stored = StoredFeatures(tmp_path / "both")
    assert all(text in stored for text in ("a red dog", "dog", "cat", "the image"))


def test_stopped_it_keeps_what_is_done(captioned, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "TOGETHER", 1)
    sources = encode.Sources((captioned,), ())

    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode.encode_captions(sources, encoder, tmp_path / "x", "the", progress=stop)
    assert len(keys(tmp_path / "x")) == 2
    assert encode.encode_captions(sources, encoder, tmp_path / "x", "the") == (1, 2)


def test_many_texts_make_several_shards(captioned, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "TOGETHER", 1)
    monkeypatch.setattr(encode, "PER_SHARD", 2)
    encode.encode_captions(encode.Sources((captioned,), ()), encoder, tmp_path / "x", "the")
    names = sorted(path.name for path in (tmp_path / "x").glob("*.safetensors"))
    assert names == ["features-00000.safetensors", "features-00001.safetensors"]
    assert len(StoredFeatures(tmp_path / "x").encode(["the", "a red dog", "the cat"])) == 3


def test_what_cannot_be_done_is_said(features, captioned, tmp_path):
    out = tmp_path / "features"
    features(captioned, out)
    with FileLock(out / ".lock"):
        refused = features(captioned, out)
    assert (refused.code, "another process adds features" in refused.err) == (6, True)

    class Wide:
        width = 8

    with pytest.raises(encode.ConfigError, match="features of width 256 and this encoder makes 8"):
        encode.encode_captions(encode.Sources((captioned,), ()), Wide(), out, "x")
    (tmp_path / "file").write_text("")
    refused = features(captioned, tmp_path / "file")
    assert (refused.code, "cannot be written" in refused.err) == (6, True)


def test_training_with_features_learns_what_it_would_with_the_encoder(
    features, captioned, texted_folder, text_encoder_folder, write_settings, nsarm_train, tmp_path,
    monkeypatch,
):  # fmt: skip
    features(captioned, tmp_path / "stored")
    plain = TextEncoder.encode

    def rounded(self, prompts):
        return [own.bfloat16().float() for own in plain(self, prompts)]

    monkeypatch.setattr(TextEncoder, "encode", rounded)
    sources = {"features": tmp_path / "stored", "text_encoder": text_encoder_folder}
    learned = []
    for name, where in sources.items():
        out = tmp_path / name
        # fp32, as the features were made
        settings = write_settings(**{"model": str(texted_folder), "steps": 2, name: str(where)})
        given = ("--data", captioned, "--config", settings, "--out", out)
        assert nsarm_train("stage2", *given).code == 0
        learned.append(load_file(out / "model.safetensors"))
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())


def test_features_that_lack_what_a_run_will_ask_for_are_refused_before_it_begins(
    features, captioned, texted_folder, write_settings, nsarm_train, tmp_path
):
    stored, others, out = tmp_path / "stored", tmp_path / "others", tmp_path / "run"
    shutil.copytree(captioned, others)
    (others / "3.txt").write_text("seen in validation alone")
    features(captioned, stored)

    def train(*options, **changes):
        settings = write_settings(model=str(texted_folder), features=str(stored), **changes)
        return nsarm_train(
            "stage2", "--data", captioned, "--config", settings, "--out", out, *options
        )

    refused = train("--val", others)
    assert refused.code == 6
    assert "the caption 'seen in validation alone' of 3.png" in refused.err
    assert "run nsarm train features again with the pictures of --val as --data" in refused.err
    refused = train(prompt="another prompt")
    assert (refused.code, "with it as --prompt" in refused.err) == (6, True)
    assert not out.exists()

    features(others, stored)
    assert train("--val", others, steps=1).code == 0


def test_an_exported_model_with_text_runs_under_its_prompt_and_others(
    captioned, texted_folder, text_encoder_folder, write_settings, nsarm_train, encoder, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "mine"
    settings = write_settings(
        model=str(texted_folder), steps=1, text_encoder=str(text_encoder_folder), prompt="the cat"
    )
    nsarm_train("stage2", "--data", captioned, "--config", settings, "--out", run)
    assert nsarm_train("export", run, out).code == 0
    prompt = load_file(out / "prompt.safetensors")["features"]
    assert torch.equal(prompt, encoder.encode(["the cat"])[0])
    photo = tmp_path / "small.png"
    Image.new("RGB", (16, 16), "teal").save(photo)
    for number, more in enumerate(((), ("--prompt", "a red dog"))):
        large = tmp_path / f"{number}.png"
        assert main(["upscale", str(photo), "-o", str(large), "--model", str(out), *more]) == 0
        assert large.exists()


def test_the_prompt_of_a_model_goes_with_it_through_stages_that_teach_no_text(
    photos, texted_folder, write_settings, nsarm_train, tmp_path
):
    stage2, decoder = tmp_path / "stage2", tmp_path / "decoder"
    given = ("--data", photos, "--config", write_settings(model=str(texted_folder), steps=1))
    assert nsarm_train("stage2", *given, "--out", stage2).code == 0
    unconditional = load_file(stage2 / "model.safetensors")["conditioner.unconditional"]
    assert torch.equal(load_file(stage2 / "prompt.safetensors")["features"], unconditional)
    marked = torch.full((3, 256), 0.5)
    save_file({"features": marked}, stage2 / "prompt.safetensors")
    done = nsarm_train("decoder", *given, "--model", stage2, "--out", decoder)
    assert done.code == 0, done.err
    assert torch.equal(load_file(decoder / "prompt.safetensors")["features"], marked)
