"""`nsarm upscale` under prompts, with a small model that takes text and its own text encoder."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from micro_text import CONFIG
from nsarm_cli.cli.main import main


@pytest.fixture
def upscale(text_model, tmp_path, capsys):
    """Upscale files greedily; gives their pixels, or the code and message of a failure."""

    def run(files, *options, model=text_model):
        out = tmp_path / "out"
        names = [str(file) for file in files]
        arguments = ["--overwrite", "--temperature", "0", "--device", "cpu", "--precision", "fp32"]
        capsys.readouterr()
        code = main(
            ["upscale", *names, "-o", f"{out}/", "--model", str(model), *arguments]
            + [str(option) for option in options]
        )
        err = capsys.readouterr().err
        if code:
            return code, err
        return [np.asarray(Image.open(out / f"{file.stem}_x4.png")) for file in files], err

    return run


@pytest.fixture
def photos(tmp_path, make_picture):
    files = [tmp_path / name for name in ("one.png", "two.png")]
    for file in files:
        make_picture(16, 16).save(file)
    return files


def test_a_prompt_changes_the_picture_and_the_same_prompt_gives_the_same(upscale, photos):
    (plain,), _ = upscale(photos[:1])
    (dog,), _ = upscale(photos[:1], "--prompt", "a red dog")
    (again,), _ = upscale(photos[:1], "--prompt", "a red dog")
    assert not np.array_equal(plain, dog)
    assert np.array_equal(dog, again)


def test_each_picture_has_the_prompt_of_its_line_and_the_others_the_general_one(
    upscale, photos, tmp_path
):
    (dog,), _ = upscale(photos[:1], "--prompt", "a red dog")
    (cat,), _ = upscale(photos[:1], "--prompt", "a cat")
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"image_path": "/theirs/two.png", "long_caption": "a red dog"}\n')
    pictures, err = upscale(photos, "--prompt-file", captions, "--prompt", "a cat")
    assert np.array_equal(pictures[0], cat)
    assert np.array_equal(pictures[1], dog)
    assert "no prompt of their own" not in err


def test_a_picture_without_a_caption_runs_under_the_models_prompt_and_is_named(upscale, photos):
    (plain,), _ = upscale(photos[:1])
    (dog,), _ = upscale(photos[:1], "--prompt", "a red dog")
    photos[1].with_suffix(".txt").write_text("a red dog\n")
    pictures, err = upscale(photos, "--prompt-sidecar")
    assert np.array_equal(pictures[0], plain)
    assert np.array_equal(pictures[1], dog)
    assert "1 of 2 pictures have no prompt of their own (one.png)" in err


def test_features_from_a_file_need_no_text_encoder(upscale, photos, text_model, tmp_path):
    from nsarm_cli.text.encoder import TextEncoder

    encoder = TextEncoder.load(text_model / "text_encoder", torch.device("cpu"), torch.float32)
    save_file({"features": encoder.encode(["a red dog"])[0]}, tmp_path / "dog.safetensors")
    bare = tmp_path / "bare"
    shutil.copytree(text_model, bare)
    shutil.rmtree(bare / "text_encoder")
    (dog,), _ = upscale(photos[:1], "--prompt", "a red dog")
    (read,), _ = upscale(photos[:1], "--prompt-features", tmp_path / "dog.safetensors", model=bare)
    assert np.array_equal(dog, read)
    code, err = upscale(photos[:1], "--prompt", "a red dog", model=bare)
    assert code == 4
    assert "there is no such folder, so prompts cannot be read" in err


def test_guidance_and_a_negative_prompt_change_the_picture(upscale, photos):
    (plain,), _ = upscale(photos[:1])
    (one,), _ = upscale(photos[:1], "--cfg", "1,1,1,1")
    (guided,), _ = upscale(photos[:1], "--cfg", "1,1,4,4")
    (negative,), _ = upscale(photos[:1], "--cfg", "1,1,4,4", "--negative-prompt", "blurry")
    assert np.array_equal(plain, one)
    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, negative)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cfg", "1,2"], "it has 2 weights, but this model has 4 scales"),
        (["--cfg", "much"], "'much' is not a number, or numbers with commas"),
        (["--cfg", "nan"], "'nan' is not a number"),
        (["--negative-prompt", "blurry"], "it acts through guidance alone; give --cfg"),
        (["--prompt", "a", "--prompt-features", "f"], "it takes the place of --prompt"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(upscale, photos, options, message):
    code, err = upscale(photos[:1], *options)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    "options",
    [
        ["--prompt", "a dog"],
        ["--prompt-file", "f"],
        ["--prompt-sidecar"],
        ["--prompt-features", "f"],
        ["--negative-prompt", "a", "--cfg", "2"],
    ],
    ids=lambda options: options[0],
)
def test_a_model_without_text_refuses_every_option_about_text(upscale, photos, options):
    code, err = upscale(photos[:1], *options, model="nsarm-nano")
    assert code == 2
    assert f"for {options[0]}: model nsarm-nano takes no text" in " ".join(err.split())


def test_a_model_without_guidance_refuses_it(upscale, photos):
    code, err = upscale(photos[:1], "--cfg", "2", model="nsarm-nano")
    assert code == 2
    assert "for --cfg: this model has no guidance" in " ".join(err.split())


def test_an_encoder_of_another_model_is_refused(upscale, photos, text_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(text_model, other)
    config = dataclasses.replace(CONFIG, text_width=128)
    text = json.dumps({"family": "nsarm", "config": config.to_dict()})
    (other / "config.json").write_text(text)
    code, err = upscale(photos[:1], "--prompt", "a dog", model=other)
    assert code == 4
    assert "is the text encoder of another model" in err


def test_the_prompt_stands_in_the_trace(upscale, photos, tmp_path):
    from safetensors import safe_open

    trace = tmp_path / "trace.safetensors"
    upscale(photos[:1], "--prompt", "a red dog", "--trace", trace)
    with safe_open(trace, framework="pt") as file:
        assert file.metadata()["prompt"] == "a red dog"


def test_python_takes_prompts_as_text_or_as_features(text_model, make_picture):
    from nsarm_cli import Sampling, Upscaler

    upscaler = Upscaler.from_pretrained(str(text_model), device="cpu", precision="fp32")
    picture, greedy = make_picture(16, 16), Sampling(temperature=0, guidance=2)
    plain = upscaler.upscale(picture, sampling=greedy)
    dog = upscaler.upscale(picture, prompt="a red dog", sampling=greedy)
    negative = upscaler.upscale(
        picture, prompt="a red dog", negative_prompt="blurry", sampling=greedy
    )
    features = upscaler.encode(["a red dog"])[0]
    assert upscaler.upscale(picture, prompt=features, sampling=greedy) == dog
    assert len({image.tobytes() for image in (plain, dog, negative)}) == 3
    assert upscaler.upscale(picture, sampling=greedy) == plain


def test_python_refuses_a_prompt_for_a_model_without_text(resolver, make_picture):
    from nsarm_cli import Upscaler

    with pytest.raises(ValueError, match="takes no text"):
        Upscaler(resolver, torch.device("cpu")).upscale(make_picture(8, 8), prompt="a dog")
    with pytest.raises(ValueError, match="takes no text"):
        Upscaler(resolver, torch.device("cpu")).encode(["a dog"])
