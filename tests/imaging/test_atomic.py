"""What killed processes leave behind is removed, and nothing else."""

import os
import time

import pytest

from nsarm_cli.imaging import atomic
from nsarm_cli.imaging.atomic import sweep, temporary_name, whole_file


def old(path):
    path.write_bytes(b"half a picture")
    os.utime(path, times=(time.time() - 3600,) * 2)
    return path


def test_leftovers_of_the_dead_are_removed(tmp_path):
    left = old(temporary_name(tmp_path / "a.png"))
    sweep(tmp_path)
    assert not left.exists()
    sweep(tmp_path / "missing")


@pytest.mark.skipif(atomic.fcntl is None, reason="an open file cannot be removed there")
def test_a_file_that_is_being_written_stays(tmp_path):
    with whole_file(tmp_path / "a.png", overwrite=False) as file:
        file.write(b"slowly")
        file.flush()
        (temporary,) = tmp_path.iterdir()
        os.utime(temporary, times=(time.time() - 3600,) * 2)
        sweep(tmp_path)
        assert temporary.exists()
    assert (tmp_path / "a.png").read_bytes() == b"slowly"


def test_young_files_and_those_of_others_stay(tmp_path):
    young = temporary_name(tmp_path / "a.png")
    young.write_bytes(b"")
    others = [old(tmp_path / name) for name in (".nsarm-notes.tmp", "nsarm.tmp", ".nsarm-0.tmp")]
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, *others])


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(38, "no locks here")

    monkeypatch.setattr(atomic, "_hold", refuse)
    with whole_file(tmp_path / "a.png", overwrite=False) as file:
        file.write(b"whole")
    left = old(temporary_name(tmp_path / "b.png"))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([left, tmp_path / "a.png"])
