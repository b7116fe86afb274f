"""What docs/training.md says is so: its commands, options, presets and settings."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from nsarm_cli.cli.main import build_app
from nsarm_cli.training.config import (
    DecoderConfig,
    PriorConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.settings_file import PRESETS, read_config

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
KINDS = (TokenizerConfig, PriorConfig, Stage1Config, Stage2Config, DecoderConfig)


def blocks(language):
    every = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [content for name, content in every if name == language]


def commands():
    """Every `nsarm` command of the page, also those within another."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [line[line.index("nsarm ") :] for line in lines if re.search(r"^nsarm ", line)]


@pytest.mark.parametrize("line", commands())
def test_a_command_and_its_options_exist(line):
    words = shlex.split(line)[1:]
    command = get_command(build_app())
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known
    if "--config" in words:
        assert (PRESETS / f"{words[words.index('--config') + 1]}.toml").is_file()


def test_the_page_has_every_stage():
    told = {shlex.split(line)[2] for line in commands() if line.startswith("nsarm train")}
    assert told >= {"tokenizer", "prior", "stage1", "stage2", "decoder", "export", "features"}


def test_the_settings_of_the_table_exist():
    table = GUIDE[GUIDE.index("| setting") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    known = {field.name for kind in KINDS for field in dataclasses.fields(kind)}
    assert told
    assert told <= known


def test_the_file_of_the_example_is_read(tmp_path):
    (example,) = blocks("toml")
    (tmp_path / "faces.toml").write_text(example)
    config = read_config(Stage2Config, tmp_path / "faces.toml")
    assert (config.steps, config.degradation, config.ema) == (5000, "realesrgan", 0.999)


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", GUIDE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
