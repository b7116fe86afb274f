"""A caption finds its picture by name, wherever the caption file was written."""

import json
from pathlib import Path

import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.text.prompts import read_prompt_file, read_sidecar


@pytest.fixture
def write(tmp_path):
    def make(*entries):
        path = tmp_path / "captions.jsonl"
        lines = [
            json.dumps({"image_path": name, "h_div_w": 1.0, "long_caption": caption})
            for name, caption in entries
        ]
        path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        return read_prompt_file(path)

    return make


@pytest.mark.parametrize("written", ["/home/them/LR/1.png", "C:\\LR\\1.png", "1.png"])
def test_a_picture_is_found_by_its_name_alone(write, written):
    captions = write((written, "a dog"), ("/home/them/LR/2.png", "a cat"))
    assert captions.find(Path("elsewhere/1.png")) == "a dog"
    assert captions.find(Path("elsewhere/3.png")) is None


def test_more_of_the_path_tells_pictures_of_one_name_apart(write):
    captions = write(("x/a/1.png", "a dog"), ("x/b/1.png", "a cat"))
    assert captions.find(Path("photos/b/1.png")) == "a cat"
    assert captions.find(Path("photos/a/1.png")) == "a dog"
    with pytest.raises(ConfigError, match=r"has 2 different captions for 1\.png"):
        captions.find(Path("photos/c/1.png"))


def test_lines_that_agree_are_no_contradiction(write):
    assert write(("a/1.png", "a dog"), ("b/1.png", "a dog")).find(Path("1.png")) == "a dog"


def test_captions_are_kept_as_they_are(write):
    caption = "Straße \u2028 \U0001f436 'quoted'\t"
    assert write(("1.png", caption)).find(Path("1.png")) == caption


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"text"',
        "7",
        '{"image_path": "1.png"}',
        '{"image_path": 1, "long_caption": "a"}',
        '{"image_path": "1.png", "long_caption": null}',
        '{"image_path": "", "long_caption": "a"}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:30],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image_path": "1.png", "long_caption": "a"}\n' + line)
    with pytest.raises(ConfigError, match=r"captions\.jsonl: line 2 is not a JSON object"):
        read_prompt_file(path)


def test_a_missing_file_or_one_that_is_not_text_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompt_file(tmp_path / "absent.jsonl")
    (tmp_path / "picture.jsonl").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_prompt_file(tmp_path / "picture.jsonl")


def test_a_text_beside_a_picture_is_its_prompt(tmp_path):
    assert read_sidecar(tmp_path / "photo.jpg") is None
    (tmp_path / "photo.txt").write_text("\ufeff a red dog \n", encoding="utf-8")
    assert read_sidecar(tmp_path / "photo.jpg") == "a red dog"
