"""From settings and pictures to a model folder that upscales; mistakes are sentences."""

import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nsarm_cli.models.interface import Sampling
from nsarm_cli.runtime import window_generator
from nsarm_cli.training import runner
from nsarm_cli.training.config import Stage1Config
from nsarm_cli.training.settings_file import read_config
from nsarm_cli.training.stage1 import Stage1
from nsarm_cli.training.start import starting_model
from nsarm_cli.weights.families import load_resolver
from nsarm_cli.weights.folder import load_model

CPU = torch.device("cpu")


def test_the_stages_follow_each_other_and_their_model_upscales(
    nsarm_train, write_settings, photos, tmp_path
):
    previous = None
    for stage in ("tokenizer", "prior", "stage1", "stage2", "decoder"):
        start = [] if previous is None else ["--model", previous]
        out = tmp_path / stage
        settings = write_settings(steps=1, workers=0)
        done = nsarm_train(stage, "--data", photos, "--config", settings, "--out", out, *start)
        assert (done.code, done.out) == (0, f"{out}\n")
        previous = out

    resolver = load_resolver(str(previous), CPU, torch.float32)
    lr = torch.rand(2, 3, 16, 16) * 2 - 1
    sr = resolver.resolve(lr, [window_generator(0, i) for i in range(2)], Sampling())
    assert sr.shape == (2, 3, 64, 64)
    assert sr.isfinite().all()
    assert sr.abs().max() <= 1


def test_a_start_from_a_presets_name_is_told_to_have_no_weights_but_once(
    nsarm_train, write_settings, micro_folder, photos, tmp_path
):
    def start(model, out, steps, crop=256):
        settings = write_settings(model=str(model), steps=steps, batch=1, crop=crop)
        done = nsarm_train("stage1", "--data", photos, "--config", settings, "--out", out)
        assert done.code == 0, done.err
        return "weights begin at random" in done.err

    assert start("nsarm-nano", tmp_path / "preset", 1)
    assert not start("nsarm-nano", tmp_path / "preset", 2)  # it goes on
    assert not start(micro_folder, tmp_path / "folder", 1, crop=64)


def test_the_number_of_steps_may_be_given_with_the_command(
    nsarm_train, write_settings, photos, tmp_path, saved_in
):
    out = tmp_path / "out"
    given = ("--data", photos, "--config", write_settings(steps=4), "--out", out, "--steps", "2")
    assert nsarm_train("stage1", *given).code == 0
    assert saved_in(out).step == 2
    assert "\nsteps = 2\n" in (out / "training.toml").read_text()


def test_the_folder_holds_the_trained_model(
    nsarm_train, write_settings, photos, tmp_path, saved_in
):
    out = tmp_path / "out"
    nsarm_train("tokenizer", "--data", photos, "--config", write_settings(), "--out", out)
    kept = saved_in(out)
    assert kept.step == 4
    for name, tensor in load_model(out).state_dict().items():
        assert torch.equal(tensor, kept.tensors[f"model.{name}"])
    assert json.loads((out / "config.json").read_text())["family"] == "nsarm"


def test_the_settings_of_a_run_are_kept_and_can_be_used_again(
    nsarm_train, write_settings, photos, tmp_path
):
    settings, out = write_settings(steps=1, lr=3e-5), tmp_path / "out"
    nsarm_train("stage1", "--data", photos, "--config", settings, "--out", out)
    assert read_config(Stage1Config, out / "training.toml") == read_config(Stage1Config, settings)

    again = tmp_path / "again"
    nsarm_train("stage1", "--data", photos, "--config", out / "training.toml", "--out", again)
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_model_and_weights_given_as_options_replace_those_of_the_settings(
    nsarm_train, write_settings, micro_folder, alexnet_file, photos, tmp_path
):
    settings = write_settings(model="absent", steps=1, perceptual=1.0)
    done = nsarm_train(
        *("tokenizer", "--data", photos, "--config", settings, "--out", tmp_path / "out"),
        *("--model", micro_folder, "--perceptual-weights", alexnet_file),
    )
    assert done.code == 0
    kept = (tmp_path / "out" / "training.toml").read_text()
    assert f'model = "{micro_folder}"' in kept
    assert f'perceptual_weights = "{alexnet_file}"' in kept


def test_the_decoder_learns_and_is_judged_by_dists_whose_file_is_an_option(
    nsarm_train, write_settings, vgg16_file, photos, tmp_path
):
    settings = write_settings(steps=1, validate_every=1, dists=1.0, log_every=1)
    command = ("decoder", "--data", photos, "--config", settings, "--out", tmp_path / "out")
    assert nsarm_train(*command).code == 6
    done = nsarm_train(*command, "--dists-weights", vgg16_file, "--val", photos)
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("step 1: ")]
    assert [part.count(" dists 0.") for part in line.split("validation:")] == [1, 1]
    assert f'dists_weights = "{vgg16_file}"' in (tmp_path / "out" / "training.toml").read_text()


def test_validation_figures_are_told(nsarm_train, write_settings, photos, tmp_path):
    command = ("stage1", "--data", photos, "--config", write_settings(), "--out", tmp_path / "out")
    done = nsarm_train(*command, "--val", photos)
    assert "step 2: loss 0." in done.err
    assert "step 4: " in done.err
    assert done.err.count("validation: loss 0.") == 2
    assert done.err.count(" psnr ") == 2
    assert re.search(r"lr 0\.0\d+ .* images/s .* TFLOP/s MFU \d+% ETA 0:00:0\d \|", done.err)
    with Image.open(tmp_path / "out" / "validation-000004.png") as shown:
        assert shown.size == (128, 192)


def test_steps_that_are_due_are_told_and_drawn(
    nsarm_train, write_settings, photos, alexnet_file, tmp_path
):
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    settings = write_settings(steps=5, log_every=2, validate_every=5)
    options = ("--val", photos, "--perceptual-weights", alexnet_file)
    done = nsarm_train("stage2", "--data", photos, "--config", settings, "--out", out, *options)
    lines = [line for line in done.err.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 2", "step 4", "step 5"]
    assert re.search(r"bits 2-3( \d?\.\d\d){2}", lines[0])
    assert " perceptual 0." in lines[2].split("validation:")[1]
    assert list((out / "tensorboard").glob("events.*"))


def test_without_a_tracker_nothing_is_recorded(nsarm_train, write_settings, photos, tmp_path):
    out = tmp_path / "out"
    settings = write_settings(log_every=1, steps=1, tracker="none")
    nsarm_train("stage1", "--data", photos, "--config", settings, "--out", out)
    assert not (out / "tensorboard").exists()


def test_a_preset_starts_with_fresh_weights_of_its_seed():
    one, same, other = (
        starting_model(Stage1Config(seed=seed)).state_dict()[
            "transformer.blocks.0.attention.qkv.weight"
        ]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("stage", "changes", "code", "words"),
    [
        ("stage1", {"stepz": 1}, 6, "unknown setting stepz; did you mean steps?"),
        ("stage1", {"steps": "4"}, 6, "steps is '4'; give a whole number"),
        ("stage1", {"model": "absent"}, 6, "absent: neither a model folder nor one of the presets"),
        ("stage1", {"degradation": "rain"}, 6, 'degradation is "rain"; choose one of realesrgan'),
        ("stage1", {"crop": 48}, 6, "crop is 48 but a window of micro is 64 pixels; set crop = 64"),
        ("stage2", {"crop": 50}, 6, "set crop = 64"),
        ("tokenizer", {"crop": 42}, 6, "crop is 42; give a multiple of 4"),
        ("tokenizer", {"perceptual": 0.5}, 6, "perceptual_weights names no file; make one with"),
        (
            "decoder",
            {"perceptual": 0.5, "perceptual_weights": "absent"},
            4,
            "absent: cannot be read as safetensors",
        ),
    ],
)
def test_wrong_settings_end_with_a_sentence_before_anything_is_written(
    nsarm_train, write_settings, photos, tmp_path, stage, changes, code, words
):
    out = tmp_path / "out"
    settings = write_settings(**changes)
    done = nsarm_train(stage, "--data", photos, "--config", settings, "--out", out)
    assert (done.code, done.out) == (code, "")
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert not out.exists()


def test_the_preset_of_the_tokenizer_asks_for_perceptual_weights(nsarm_train, photos, tmp_path):
    done = nsarm_train("tokenizer", "--data", photos, "--out", tmp_path / "out")
    assert done.code == 6
    assert "perceptual_weights names no file" in done.err


def test_missing_data_is_named(nsarm_train, write_settings, tmp_path):
    settings = write_settings()
    done = nsarm_train("stage1", "--data", tmp_path / "absent", "--config", settings)
    assert done.code == 6
    assert "absent: no such file or folder; give the training pictures with --data" in done.err


def test_the_data_and_the_preset_are_looked_at_before_the_model(
    nsarm_train, write_settings, tmp_path
):
    settings = write_settings(model="absent")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").touch()
    done = nsarm_train("stage1", "--data", tmp_path / "empty", "--config", settings)
    assert (done.code, "empty: no pictures found" in done.err) == (6, True)
    done = nsarm_train("stage2", "--data", tmp_path / "empty", "--config", "nano-stage1")
    assert done.code == 6
    assert "nano-stage1: is a preset of nsarm train stage1, not of stage2; for that" in done.err
    assert nsarm_train("stage1", "--config", settings).code == 2


def test_a_file_in_place_of_the_run_is_named(nsarm_train, write_settings, photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    out = tmp_path / "out"
    done = nsarm_train("stage1", "--data", photos, "--config", write_settings(), "--out", out)
    assert done.code == 6
    assert "out/training.toml: cannot be written (File exists); free space or use" in done.err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_is_named(nsarm_train, write_settings, photos, tmp_path, workers):
    (photos / "2.png").write_bytes(b"no picture")
    settings = write_settings(workers=workers, corrupt=0)
    done = nsarm_train("stage1", "--data", photos, "--config", settings, "--out", tmp_path / "out")
    assert done.code == 3
    assert "2.png cannot be decoded" in done.err
    assert "Traceback" not in done.err


def test_a_damaged_checkpoint_and_one_of_another_stage_end_with_a_sentence(
    nsarm_train, write_settings, photos, tmp_path
):
    out = tmp_path / "out"
    command = ("--data", photos, "--config", write_settings(steps=1), "--out", out)
    assert nsarm_train("stage1", *command).code == 0

    records = [out / "training.toml", out / "run.json"]
    before = [file.read_text() for file in records]
    other = nsarm_train("stage2", *command)
    assert other.code == 6
    assert "optimiser of another stage; use another --out folder" in other.err
    assert [file.read_text() for file in records] == before

    (file,) = (out / "checkpoints").glob("*/*")
    file.write_bytes(b"damage")
    damaged = nsarm_train("stage1", *command)
    assert damaged.code == 6
    assert "step-00000001: is damaged" in damaged.err


def test_divergence_ends_with_a_sentence_and_writes_no_model(
    nsarm_train, write_settings, photos, tmp_path, monkeypatch
):
    build = runner.build_stage

    def build_with_fault(config, model, device):
        stage = build(config, model, device)
        model.transformation.out.bias.register_hook(lambda gradient: gradient * torch.nan)
        return stage

    monkeypatch.setattr(runner, "build_stage", build_with_fault)
    out = tmp_path / "out"
    done = nsarm_train("stage1", "--data", photos, "--config", write_settings(), "--out", out)
    assert done.code == 6
    assert "the gradient of transformation.out.bias is not finite; nothing was updated" in done.err
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "run.json",
        "training.toml",
    ]


def test_a_full_memory_ends_with_a_sentence_and_the_run_goes_on_from_there(
    nsarm_train, write_settings, photos, tmp_path, monkeypatch
):
    command = ("stage1", "--data", photos, "--config", write_settings(steps=4, save_minutes=0))
    command = (*command, "--out", tmp_path / "out")
    calls = []

    def loss(stage, batch, step):
        calls.append(step)
        if calls == [0, 1, 2]:
            torch.empty(2**60)  # PyTorch's own error, whose text says which memory is full
        return whole(stage, batch, step)

    whole = Stage1.loss
    monkeypatch.setattr(Stage1, "loss", loss)
    done = nsarm_train(*command)
    assert done.code == 5
    assert "out: main memory is full; set accumulate higher" in done.err
    write_settings(steps=4, accumulate=2)  # the same file, as the sentence advises
    assert nsarm_train(*command).code == 0
    assert calls == [0, 1, 2, 2, 2, 3, 3]


def test_an_exported_model_is_half_as_large_and_has_the_defaults_given(
    nsarm_train, micro_folder, micro, tmp_path
):
    out = tmp_path / "exported"
    options = ("--temperature", 0.25, "--top-p", 0.9, "--color", "adain")

    done = nsarm_train("export", micro_folder, out, *options)

    assert (done.code, done.out) == (0, f"{out}\n")
    kept, stored = micro.state_dict(), load_file(out / "model.safetensors")
    assert stored.keys() == kept.keys()
    assert all(torch.equal(stored[name], kept[name].bfloat16()) for name in kept)
    resolver = load_resolver(str(out), CPU, torch.float32)
    assert (resolver.sampling.temperature, resolver.sampling.top_p) == (0.25, 0.9)
    assert resolver.color == "adain"


def test_an_export_changes_nothing_that_it_is_not_asked_to(
    nsarm_train, micro_folder, micro, tmp_path
):
    assert nsarm_train("export", micro_folder, tmp_path / "out", "--precision", "fp32").code == 0
    loaded = load_model(tmp_path / "out")
    assert loaded.config == micro.config
    wanted = micro.state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in loaded.state_dict().items())


def test_an_export_replaces_no_model_and_needs_one(nsarm_train, micro_folder, tmp_path):
    weights = micro_folder / "model.safetensors"
    before = weights.read_bytes()
    again = nsarm_train("export", micro_folder, micro_folder)
    assert again.code == 6
    assert "exists already; give another folder or remove the file" in again.err
    assert weights.read_bytes() == before

    nothing = nsarm_train("export", tmp_path / "absent", tmp_path / "out")
    assert nothing.code == 4
    assert "absent: is not a model folder" in nothing.err
    assert not (tmp_path / "out").exists()

    (tmp_path / "file").write_text("mine")
    blocked = nsarm_train("export", micro_folder, tmp_path / "file")
    assert blocked.code == 6
    assert "cannot be written" in blocked.err
