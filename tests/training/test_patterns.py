"""Paths, globs, braces, URLs and commands are told apart."""

from pathlib import Path

import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.patterns import braces, find_sources, shown


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("a", ["a"]),
        ("s{08..11}.tar", ["s08.tar", "s09.tar", "s10.tar", "s11.tar"]),
        ("s{2..0}", ["s2", "s1", "s0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a,}x", ["ax", "x"]),
        ("pipe:awk '{print}' {1..2}", ["pipe:awk '{print}' 1", "pipe:awk '{print}' 2"]),
        ("{one}", ["{one}"]),
    ],
)
def test_braces_stand_for_several_names_and_others_stay(word, wanted):
    assert braces(word) == wanted


def test_a_pattern_for_too_much_is_refused():
    for word in ("{0..99999999}", "{0..9999}{0..9999}"):
        with pytest.raises(ConfigError, match="stands for more than 1000000 names"):
            braces(word)


def test_globs_and_braces_find_files_in_order(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    found = find_sources([f"{tmp_path}/*.tar", f"{tmp_path}/{{c,a}}.t*"])
    assert [path.name for path in found.paths] == ["a.tar", "b.tar", "c.txt", "a.tar"]
    with pytest.raises(ConfigError, match=r"\*\.jpg: nothing matches"):
        find_sources([f"{tmp_path}/*.jpg"])


def test_a_file_with_odd_characters_in_its_name_is_itself(tmp_path):
    (tmp_path / "a{1,2}[x].tar").touch()
    found = find_sources([str(tmp_path / "a{1,2}[x].tar")])
    assert found.paths == (tmp_path / "a{1,2}[x].tar",)
    assert find_sources([str(tmp_path / "absent")]).paths == (Path(tmp_path / "absent"),)


def test_shards_elsewhere_are_not_mixed_with_files(tmp_path):
    found = find_sources(["https://host/{0..1}.tar", "pipe:cat x.tar"])
    assert found.streams == ("https://host/0.tar", "https://host/1.tar", "pipe:cat x.tar")
    with pytest.raises(ConfigError, match=r"is of this machine and pipe:cat x is not"):
        find_sources([str(tmp_path), "pipe:cat x"])


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("https://me:pw@host:8443/a/0.tar?X-Token=secret#part", "https://host:8443/a/0.tar"),
        ("http://host/0.tar", "http://host/0.tar"),
        ("pipe:cat 'a?b'", "pipe:cat 'a?b'"),
        ("shards/what?.tar", "shards/what?.tar"),
    ],
)
def test_messages_show_an_address_without_what_may_be_secret(word, wanted):
    assert shown(word) == wanted
