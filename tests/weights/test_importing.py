"""Files fetched by hand are recognised, checked and linked; the user's own are left as they are."""

import hashlib
import io
import os
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from tests.silent import Silent

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.catalog import find_model
from nsarm_cli.weights.entries import DriveSource, FileEntry, HubSource, ModelEntry
from nsarm_cli.weights.importing import import_files
from nsarm_cli.weights.store import State, Store

VAE = b"autoencoder" * 1000


def checkpoint() -> bytes:
    """A zip archive, as PyTorch writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("t/data/0", bytes(range(251)) * 300)
    return buffer.getvalue()


TRANSFORMER = checkpoint()
PART = 30_000
PARTS = {
    f"t_part_a{letter}": TRANSFORMER[i * PART : (i + 1) * PART] for i, letter in enumerate("abc")
}
MODEL = ModelEntry(
    "large",
    "nsarm",
    (
        FileEntry(
            "vae",
            PurePosixPath("vae/a.pth"),
            (HubSource("x/y", None, "original/autoencoder_v1.pth"),),
            sha256=hashlib.sha256(VAE).hexdigest(),
        ),
        FileEntry(
            "transformer",
            PurePosixPath("transformer/t.pth"),
            (DriveSource("id", "t_part_*"),),
            parts="t_part_*",
            md5=hashlib.md5(TRANSFORMER, usedforsecurity=False).hexdigest(),
        ),
        FileEntry(
            "config", PurePosixPath("a/config.json"), (HubSource("x/y", None, "config.json"),)
        ),
        FileEntry(
            "config", PurePosixPath("b/config.json"), (HubSource("x/z", None, "config.json"),)
        ),
    ),
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


@pytest.fixture
def mine(tmp_path):
    """The user's folder with all files, and what was in it at first."""
    folder = tmp_path / "Downloads (1) [größer]"
    folder.mkdir()
    (folder / "a.pth").write_bytes(VAE)
    for name, data in PARTS.items():
        (folder / name).write_bytes(data)
    return folder


def take(store, *paths):
    import_files(store, MODEL, paths, Silent())


def state(store, index):
    return store.status(MODEL).files[index].state


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_taken_in_by_name_and_stay_where_they_were(store, mine):
    before = contents(mine)
    take(store, mine / "a.pth", *(mine / name for name in reversed(PARTS)))
    assert (state(store, 0), state(store, 1)) == (State.VERIFIED, State.VERIFIED)
    assert contents(mine) == before


def test_on_one_disk_they_are_linked(store, mine):
    take(store, mine / "a.pth")
    assert (store.downloads("large") / "vae/a.pth").samefile(mine / "a.pth")


def test_on_another_disk_they_are_copied(store, mine, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    take(store, mine / "a.pth")
    assert not (store.downloads("large") / "vae/a.pth").samefile(mine / "a.pth")
    assert state(store, 0) is State.VERIFIED


def test_the_name_of_the_source_is_known_as_well(store, mine):
    (mine / "a.pth").rename(mine / "autoencoder_v1.pth")
    take(store, mine / "autoencoder_v1.pth")
    assert state(store, 0) is State.VERIFIED


def test_a_renamed_file_is_recognised_by_its_digest(store, mine):
    (mine / "a.pth").rename(mine / "a (1).pth")
    take(store, mine / "a (1).pth")
    assert state(store, 0) is State.VERIFIED


def test_a_join_made_by_hand_stands_for_the_parts(store, mine):
    (mine / "joined.pth").write_bytes(TRANSFORMER)
    take(store, mine / "joined.pth")
    assert state(store, 1) is State.VERIFIED


def test_a_folder_gives_what_it_holds_of_the_model(store, mine):
    (mine / "holiday.jpg").write_bytes(b"picture")
    take(store, mine)
    assert (state(store, 0), state(store, 1)) == (State.VERIFIED, State.VERIFIED)


def test_an_unknown_file_is_refused_with_the_known_names(store, mine):
    (mine / "holiday.jpg").write_bytes(b"picture")
    with pytest.raises(WeightsError, match=r"holiday\.jpg: is none of the files of .*t_part_\*"):
        take(store, mine / "holiday.jpg")
    assert not store.downloads("large").exists()


def test_a_name_that_two_files_have_is_refused(store, mine):
    (mine / "config.json").write_bytes(b"{}")
    with pytest.raises(WeightsError, match=r"config\.json: could be several of the files"):
        take(store, mine / "config.json")


def test_two_files_for_one_place_are_refused(store, mine):
    (mine / "autoencoder_v1.pth").write_bytes(VAE)
    with pytest.raises(WeightsError, match=r"both are a\.pth"):
        take(store, mine / "a.pth", mine / "autoencoder_v1.pth")


def test_a_damaged_file_is_refused_and_kept_where_it_was(store, mine):
    (mine / "a.pth").write_bytes(VAE[::-1])
    with pytest.raises(WeightsError, match=r"a\.pth: has the sha256 .* fetch it again"):
        take(store, mine / "a.pth")
    assert state(store, 0) is State.MISSING
    assert (mine / "a.pth").read_bytes() == VAE[::-1]
    assert not list(store.downloads("large").rglob("*.importing"))


def test_a_damaged_file_does_not_replace_a_good_one(store, mine):
    take(store, mine / "a.pth")
    bad = mine.parent / "a.pth"
    bad.write_bytes(VAE[::-1])
    with pytest.raises(WeightsError):
        take(store, bad)
    assert state(store, 0) is State.VERIFIED


def test_parts_may_come_in_several_imports(store, mine):
    with pytest.raises(WeightsError, match="missing t_part_ab; the other parts are kept"):
        take(store, mine / "t_part_aa", mine / "t_part_ac")
    assert state(store, 1) is State.PARTIAL
    take(store, mine / "t_part_ab")
    assert state(store, 1) is State.VERIFIED


def test_a_damaged_part_is_replaced_by_importing_it_again(store, mine):
    (mine / "t_part_ab").write_bytes(PARTS["t_part_ab"][::-1])
    with pytest.raises(WeightsError, match=r"instead of .*import the right ones over them"):
        take(store, mine)
    assert state(store, 1) is State.DAMAGED
    right = mine.parent / "t_part_ab"
    right.write_bytes(PARTS["t_part_ab"])
    take(store, right)
    assert state(store, 1) is State.VERIFIED


def test_a_file_that_is_in_its_place_already_is_only_checked(store, mine):
    take(store, mine / "a.pth")
    take(store, store.downloads("large") / "vae/a.pth")
    assert state(store, 0) is State.VERIFIED


def test_a_missing_file_and_a_shipped_model_are_errors(store, tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth: is no file"):
        take(store, tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="nothing to import"):
        import_files(store, find_model("nsarm-nano"), [Path("x")], Silent())
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty: holds no file of large"):
        take(store, tmp_path / "empty")
