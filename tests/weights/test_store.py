"""The state of weights is known from names, sizes, times and what was recorded."""

import hashlib
import json
import logging
import os
from pathlib import Path, PurePosixPath

import pytest

from nsarm_cli.weights.catalog import find_model
from nsarm_cli.weights.entries import FileEntry, FolderSource, ModelEntry
from nsarm_cli.weights.record import (
    DAMAGED,
    RECORD_NAME,
    UNCHECKED,
    VERIFIED,
    JoinStamp,
    Record,
    read_record,
    stamp,
    write_record,
)
from nsarm_cli.weights.store import State, Store

WHOLE, PARTS = b"autoencoder", b"transformer"
SOURCE = (FolderSource(Path("/absent"), "x"),)
VAE = FileEntry(
    "vae",
    PurePosixPath("vae/a.pth"),
    SOURCE,
    size=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
)
TRANSFORMER = FileEntry(
    "transformer",
    PurePosixPath("transformer/t.pth"),
    SOURCE,
    parts="t_part_*",
    md5=hashlib.md5(PARTS, usedforsecurity=False).hexdigest(),
)
MODEL = ModelEntry("large", "nsarm", (VAE, TRANSFORMER))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def put(store, path, data):
    target = store.downloads("large") / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


def states(store):
    return [file.state for file in store.status(MODEL).files]


def remember(store, *paths, verdict=VERIFIED, join=None):
    folder = store.downloads("large")
    record = read_record(folder)
    for path in paths:
        digests = {"sha256": hashlib.sha256((folder / path).read_bytes()).hexdigest()}
        record.files[path] = stamp(folder / path, verdict, digests, "a test")
    if join is not None:
        record.joins["transformer/t.pth"] = join
    write_record(folder, record)


def test_the_folder_is_the_one_of_the_environment_or_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "w"))
    assert Store().root == tmp_path / "w"
    monkeypatch.setenv("NSARM_HOME", "~/w")
    assert Store().root == Path.home() / "w"
    monkeypatch.setenv("NSARM_HOME", "")
    assert Store().root.name == "nsarm"
    assert Store().root.is_absolute()


def test_looking_changes_nothing(store):
    assert store.status(MODEL).state is State.MISSING
    assert not store.root.exists()


def test_a_shipped_model_is_verified_and_ready(store):
    status = store.status(find_model("nsarm-nano"))
    assert status.state is State.VERIFIED
    assert status.runnable == status.files[0].paths[0].parent


def test_a_file_goes_from_missing_over_partial_and_present_to_verified(store):
    assert states(store)[0] is State.MISSING
    put(store, "vae/a.pth.partial", WHOLE[:4])
    assert states(store)[0] is State.PARTIAL
    assert store.status(MODEL).held == 4
    (store.downloads("large") / "vae/a.pth.partial").unlink()
    put(store, "vae/a.pth", WHOLE)
    assert states(store)[0] is State.PRESENT
    remember(store, "vae/a.pth")
    assert states(store)[0] is State.VERIFIED


def test_a_file_that_changed_since_it_was_checked_is_only_present(store):
    path = put(store, "vae/a.pth", WHOLE)
    remember(store, "vae/a.pth")
    os.utime(path, ns=(1, 1))
    assert states(store)[0] is State.PRESENT


def test_a_file_of_the_wrong_size_or_content_is_damaged(store):
    put(store, "vae/a.pth", WHOLE + b"!")
    assert states(store)[0] is State.DAMAGED
    put(store, "vae/a.pth", WHOLE[::-1])
    remember(store, "vae/a.pth", verdict=UNCHECKED)  # the digest tells
    assert states(store)[0] is State.DAMAGED


def test_parts_are_partial_until_their_join_was_checked(store):
    names = [f"t_part_{i}" for i in (10, 9, 2)]
    for name in names:
        put(store, f"transformer/{name}", b"x")
    assert states(store)[1] is State.PARTIAL
    found = [path.name for path in store.paths(MODEL, TRANSFORMER)]
    assert found == ["t_part_2", "t_part_9", "t_part_10"]
    contents = dict.fromkeys(found, hashlib.sha256(b"x").hexdigest())
    join = JoinStamp(contents, VERIFIED, {"md5": TRANSFORMER.md5})
    remember(store, *(f"transformer/{name}" for name in names), join=join)
    assert states(store)[1] is State.VERIFIED
    put(store, "transformer/t_part_9", b"y")  # another content than was joined
    remember(store, "transformer/t_part_9")
    assert states(store)[1] is State.PARTIAL
    put(store, "transformer/t_part_9", b"x")
    remember(store, "transformer/t_part_9")
    assert states(store)[1] is State.VERIFIED
    put(store, "transformer/t_part_11", b"x")  # one more than was joined
    assert states(store)[1] is State.PARTIAL


def test_a_join_with_another_digest_is_damaged(store):
    put(store, "transformer/t_part_0", b"x")
    join = JoinStamp({"t_part_0": hashlib.sha256(b"x").hexdigest()}, DAMAGED, {"md5": "0" * 32})
    remember(store, "transformer/t_part_0", join=join)
    assert states(store)[1] is State.DAMAGED
    assert store.status(MODEL).state is State.DAMAGED


def test_a_joined_file_stands_for_its_parts(store):
    put(store, "transformer/t_part_0", b"x")
    whole = put(store, "transformer/t.pth", PARTS)
    assert store.paths(MODEL, TRANSFORMER) == (whole,)


def test_unfinished_and_rejected_files_are_no_parts(store):
    names = ["0.rejected", "1.partial", "2.drive", "3.driveabcdefgh.part", "4.importing"]
    rejected, *made = [put(store, f"transformer/t_part_{name}", b"x") for name in names]
    put(store, "transformer/other.partial", b"x")
    assert store.paths(MODEL, TRANSFORMER) == ()
    assert store.unfinished(MODEL, TRANSFORMER) == tuple(made)
    assert store.rejected(MODEL, TRANSFORMER) == (rejected,)
    assert states(store)[1] is State.PARTIAL
    assert store.status(MODEL).held == 4


def test_a_model_is_partial_while_some_of_it_is_missing(store):
    put(store, "vae/a.pth", WHOLE)
    assert store.status(MODEL).state is State.PARTIAL


def test_a_converted_model_is_ready(store):
    assert store.status(MODEL).runnable is None
    folder = store.converted("large")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert store.status(MODEL).runnable == folder


def test_a_record_comes_back_as_it_was_written(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    record = Record(
        {"f": stamp(tmp_path / "f", VERIFIED, {"md5": "0"}, "here")},
        {"t": JoinStamp({"a": "0", "b": "1"}, UNCHECKED, {})},
        {"t": ("a", "b", "c")},
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD_NAME, "f"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 9}', '{"version": 1, "files": {"a": {"b": 1}}}']
)
def test_a_damaged_record_is_said_and_taken_as_empty(tmp_path, caplog, text):
    (tmp_path / RECORD_NAME).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read_record(tmp_path) == Record()
    assert RECORD_NAME in caplog.text


def test_a_record_is_plain_json_with_a_version(tmp_path):
    write_record(tmp_path, Record())
    assert json.loads((tmp_path / RECORD_NAME).read_text())["version"] == 1
