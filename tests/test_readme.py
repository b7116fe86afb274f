"""What the README says is so: its commands, options, exit codes, links and Python."""

import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image
from typer.main import get_command

from nsarm_cli import errors
from nsarm_cli.cli.main import INTERRUPTED, TERMINATED, build_app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Contents of the fenced blocks of one language, "" for those without."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in every if name == language]


def options_of(command_line: str) -> set[str]:
    return {word for word in shlex.split(command_line, comments=True) if word.startswith("-")}


def known_options(command: str) -> dict[str, set[str]]:
    """Long name -> all spellings, of one command."""
    group = get_command(build_app())
    params = group.get_command(None, command).params
    return {param.name: set(param.opts) for param in params if param.param_type_name == "option"}


def test_the_first_two_blocks_are_one_line_each_and_need_nothing_before():
    upscale, test = blocks("sh")[:2]
    for block in (upscale, test):
        assert block.count("\n") == 1
        assert block.startswith("python3 -m venv .venv && ")
    assert README.index(test) < README.index("## Use")
    assert "pip install ." in upscale
    assert "-e '.[test]'" in test
    assert test.rstrip().endswith("/pytest")


def test_the_first_command_upscales_a_photograph_of_the_repository_to_1024():
    words = shlex.split(blocks("sh")[0])
    picture = words[words.index("upscale") + 1]
    assert Image.open(ROOT / picture).size == (256, 256)
    assert words[words.index("-o") + 1] == "coffee_x4.png"  # what .ci/run looks at


def test_ci_runs_the_commands_from_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme_command 1" in script
    assert "readme_command 2" in script
    assert "pip install -e" not in script


def test_the_table_of_options_is_complete_and_right():
    table = README[README.index("| option of `nsarm upscale`") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    written = [set(re.findall(r"`(-[-\w]+)`", row.split("|")[1])) for row in rows]
    known = [spellings for name, spellings in known_options("upscale").items() if name != "help"]
    assert written == known


def test_every_option_in_an_example_exists():
    spellings = set().union(*known_options("upscale").values())
    lines = [line for line in "".join(blocks("")).splitlines() if line.startswith("nsarm upscale")]
    assert lines
    for line in [*lines, blocks("sh")[0].split("&&")[-1]]:
        assert options_of(line) <= spellings, line


def test_the_table_of_exit_codes_is_complete_and_right():
    table = README[README.index("| exit code") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    written = {int(code) for row in rows for code in re.findall(r"\d+", row.split("|")[1])}
    classes = [errors.ImageError, errors.WeightsError, errors.DeviceError, errors.ConfigError]
    assert written == {0, 1, 2, *(kind.exit_code for kind in classes), INTERRUPTED, TERMINATED}


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_python_example_runs(monkeypatch, resolver):
    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", lambda *_: resolver)
    monkeypatch.chdir(ROOT)
    resolver.window, resolver.overlap = 128, 16  # as it is, it would take hundreds of windows
    names: dict[str, Image.Image] = {}
    (example,) = blocks("python")
    exec(example, names)  # noqa: S102
    assert names["large"].size == names["calm"].size == (1024, 1024)
    assert not np.array_equal(np.asarray(names["large"]), np.asarray(names["calm"]))
