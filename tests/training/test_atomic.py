"""Text files of a run: whole, or as they were."""

import errno
import os

import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.atomic import write_text_atomically


def test_the_text_is_written_as_it_is_and_its_folder_made(tmp_path):
    path = tmp_path / "run" / "a.txt"
    write_text_atomically("first\n", path)
    write_text_atomically("zweite Zeile: ü\n", path)
    assert path.read_bytes() == "zweite Zeile: ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_the_new_text_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _file: seen.append(path.read_text()))
    write_text_atomically("new", path)
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_a_full_disk_leaves_the_old_text_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(_file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match=r"a\.txt: cannot be written \(No space.*--out folder"):
        write_text_atomically("new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["a folder of its name", "a file for its folder"])
def test_what_is_in_the_way_is_told(tmp_path, place):
    path = tmp_path / "run" / "a.txt"
    if place == "a folder of its name":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("")
    with pytest.raises(ConfigError, match=r"run/a\.txt: cannot be written"):
        write_text_atomically("new", path)
