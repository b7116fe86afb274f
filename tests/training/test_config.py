"""Settings are checked when they are read, and every mistake names its setting."""

import dataclasses
from pathlib import Path

import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.config import (
    DecoderConfig,
    PriorConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.settings_file import PRESETS, format_config, read_config
from nsarm_cli.training.varsr_settings import VarsrStageConfig

KINDS = {
    "tokenizer": TokenizerConfig,
    "prior": PriorConfig,
    "stage1": Stage1Config,
    "stage2": Stage2Config,
    "decoder": DecoderConfig,
    "varsr": VarsrStageConfig,
}


def read(tmp_path, text, kind=TokenizerConfig) -> RunConfig:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_config(kind, path)


def test_what_the_file_leaves_out_keeps_its_default(tmp_path):
    assert read(tmp_path, "steps = 7") == TokenizerConfig(steps=7)


def test_every_preset_is_read_by_its_name_as_its_stage():
    presets = sorted(path.stem for path in PRESETS.glob("*.toml"))
    assert {name.split("-")[-1] for name in presets} == set(KINDS)
    for name in presets:
        config = read_config(KINDS[name.split("-")[-1]], name)
        assert config != type(config)()


def test_a_file_changes_what_its_base_says(tmp_path):
    config = read(tmp_path, 'base = "nano-stage2"\nsteps = 7', Stage2Config)
    assert config == dataclasses.replace(read_config(Stage2Config, "nano-stage2"), steps=7)
    (tmp_path / "first.toml").write_text('base = "nano-stage2"\nsteps = 7\nlr = 1e-5')
    config = read(tmp_path, 'base = "first.toml"\nsteps = 8', Stage2Config)
    assert (config.steps, config.lr, config.batch) == (8, 1e-5, 4)
    assert "base" not in format_config(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "nano"', r"run\.toml: nano: no such configuration; give a TOML file or one of"),
        ('base = "run.toml"', r'run\.toml: base "run\.toml" leads back to this file'),
        ("base = 3", r"run\.toml: base is 3; give the name"),
        (
            'base = "nano-prior"',
            r'run\.toml: base "nano-prior": unknown setting flip; did you mean',
        ),
        ('bas = "nano-prior"', r"run\.toml: unknown setting bas; did you mean base\?"),
    ],
)
def test_a_base_that_cannot_be_is_said(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("kind", KINDS.values())
def test_written_settings_are_read_back_the_same(tmp_path, kind):
    odd = 'C:\\runs\\"a"\tß\n#'
    config = kind(model=odd, lr=1e-5, betas=(0.5, 0.75), save_minutes=float("inf"), shrink=1e16)
    (tmp_path / "x.toml").write_text(format_config(config))
    assert read_config(kind, tmp_path / "x.toml") == config


def test_whole_numbers_do_for_numbers(tmp_path):
    config = read(tmp_path, "lr = 1\nbetas = [0, 0.5]")
    assert (type(config.lr), config.betas) == (float, (0.0, 0.5))


@pytest.mark.parametrize(
    ("key", "hint"),
    [("stepz", "did you mean steps?"), ("entrpoy", "did you mean entropy?"), ("zzz", "known are")],
)
def test_an_unknown_setting_names_the_nearest_known(tmp_path, key, hint):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, f"{key} = 1")
    assert f"run.toml: unknown setting {key}; {hint}" in str(error.value)


def test_a_setting_of_another_stage_is_unknown(tmp_path):
    with pytest.raises(ConfigError, match="unknown setting flip"):
        read(tmp_path, "flip = 0.1", Stage1Config)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("steps = 1.5", "steps is 1.5; give a whole number like 1000"),
        ('steps = "many"', "steps is 'many'; give a whole number"),
        ("steps = true", "steps is True; give a whole number"),
        ('lr = "fast"', "lr is 'fast'; give a number"),
        ("model = 3", 'model is 3; give a string like "nsarm-nano"'),
        ("betas = 0.9", "betas is 0.9; give a list of numbers like [0.9, 0.97]"),
        ("betas = [0.9]", "betas is [0.9]; give a list"),
        ('betas = ["a", "b"]', "betas is ['a', 'b']; give a list"),
        ("[lr]\npeak = 1", "lr is {'peak': 1}; give a number"),
    ],
)
def test_a_wrong_type_shows_a_right_one(tmp_path, line, wanted):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, line)
    assert f"run.toml: {wanted}" in str(error.value)


@pytest.mark.parametrize("scales", [[], [7], [7, 8, 9]])
def test_a_list_of_scales_has_any_length(tmp_path, scales):
    config = read(tmp_path, f"flip_scales = {scales}", Stage2Config)
    assert config.flip_scales == tuple(scales)
    (tmp_path / "again.toml").write_text(format_config(config))
    assert read_config(Stage2Config, tmp_path / "again.toml") == config
    with pytest.raises(ConfigError, match=r"flip_scales is \[0\.5\]; give a list of numbers like"):
        read(tmp_path, "flip_scales = [0.5]", Stage2Config)


def test_the_presets_of_the_paper_have_its_settings():
    first = read_config(Stage1Config, "nsarm-8b-stage1")
    second = read_config(Stage2Config, "nsarm-8b-stage2")
    assert (first.steps, first.batch, first.crop) == (100_000, 196, 1024)
    assert (second.steps, second.batch, second.crop) == (40_000, 32, 1024)
    assert (second.model, second.resize) == ("nsarm-8b", "trilinear")
    assert (second.caption_drop, second.framing, second.turns) == (0.1, "whole", "none")
    assert first.degradation == second.degradation == "realesrgan"


def test_a_boolean_is_not_a_number(tmp_path):
    with pytest.raises(ConfigError, match="reweight is 1; give a boolean like false"):
        read(tmp_path, "reweight = 1", Stage2Config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("steps", "batch", "crop", "validate_every", "validate_batches")),
        *((name, -1) for name in ("warmup", "seed", "workers", "perceptual_from")),
        *((name, 0.0) for name in ("lr", "clip")),
        *((name, -0.5) for name in ("final_lr", "weight_decay", "save_minutes", "perceptual")),
        *((name, float("nan")) for name in ("lr", "pixel", "sharpness", "shrink")),
        ("shrink", 0.9),
        ("betas", (0.9, 1.0)),
        ("precision", "fp64"),
        ("decay", "sine"),
        ("attention", "dense"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} is .*; (give|choose) "):
        TokenizerConfig(**{name: value})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Stage2Config, {"resize": "cubic"}),
        (PriorConfig, {"flip_scales": (3, -1)}),
        (Stage2Config, {"flip": 0.5}),
        (Stage2Config, {"flip": -0.1}),
        (DecoderConfig, {"temperature": -1.0}),
        (DecoderConfig, {"dists": -1.0}),
        (DecoderConfig, {"pattern": -1.0}),
        (DecoderConfig, {"dists_crop": 0}),
    ],
)
def test_so_is_one_of_a_single_stage(kind, changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=f"^{name} is "):
        kind(**changes)


def test_a_refused_value_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.toml: steps is 0; give at least 1"):
        read(tmp_path, "steps = 0")


def test_a_missing_file_lists_the_presets(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_config(Stage1Config, tmp_path / "absent.toml")
    assert "absent.toml: no such configuration; give a TOML file or one of " in str(error.value)
    assert "nano-stage1, nano-stage2" in str(error.value)


@pytest.mark.parametrize("content", [b"steps = ", b"\xff\xfe", b"steps = 1\nsteps = 2"])
def test_what_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml: is not valid TOML"):
        read_config(Stage1Config, path)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "run.toml"
    path.write_text("steps = 3")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(
        ConfigError, match=r"run\.toml: cannot be read \(Permission denied\); check"
    ):
        read_config(TokenizerConfig, path)


def test_every_setting_is_documented():
    for kind in KINDS.values():
        told = "".join(base.__doc__ or "" for base in kind.__mro__)
        names = [field.name for field in dataclasses.fields(kind)]
        assert [name for name in names if f"        {name}: " not in told] == []


def test_the_preset_of_lora_is_stage_2_but_for_what_it_says():
    whole, lora = (read_config(Stage2Config, f"nsarm-8b-{n}stage2") for n in ("", "lora-"))
    changed = {
        field.name
        for field in dataclasses.fields(lora)
        if getattr(whole, field.name) != getattr(lora, field.name)
    }
    assert changed == {
        *("lora", "lora_scale", "lr", "warmup", "steps", "batch", "accumulate", "offload"),
        *("save_minutes", "validate_every"),
    }
