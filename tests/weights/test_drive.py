"""Google Drive, by a stand-in for gdown: listing, resuming, quota, and the way by hand."""

import hashlib
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace

import pytest
from tests.silent import Silent

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.download import download
from nsarm_cli.weights.entries import DriveSource, FileEntry, ModelEntry
from nsarm_cli.weights.store import State, Store

PARTS = {"t_part_aa": b"first" * 999, "t_part_ab": b"second" * 999}
MODEL = ModelEntry(
    "large",
    "nsarm",
    (
        FileEntry(
            "transformer",
            PurePosixPath("transformer/t.pth"),
            (DriveSource("folder-id", "t_part_*"),),
            parts="t_part_*",
            md5=hashlib.md5(b"".join(PARTS.values()), usedforsecurity=False).hexdigest(),
        ),
    ),
)


class FakeDrive(ModuleType):
    """What is used of gdown, on files in memory."""

    def __init__(self):
        super().__init__("gdown")
        self.files = dict(PARTS)
        self.listing_fails = False
        self.break_after: dict[str, int] = {}
        self.resumed: list[str] = []

        class DownloadError(Exception):
            pass

        class DownloadCancelled(Exception):  # noqa: N818  # gdown's own name
            pass

        self.exceptions = SimpleNamespace(
            DownloadError=DownloadError, DownloadCancelled=DownloadCancelled
        )

    def download_folder(self, *, id, skip_download, quiet, timeout):  # noqa: A002
        assert (id, skip_download, quiet) == ("folder-id", True, True)
        if self.listing_fails:
            raise self.exceptions.DownloadError("status code 500")
        names = [*self.files, "README.txt"]
        return [SimpleNamespace(id=f"id of {name}", path=f"sub/{name}") for name in names]

    def download(self, *, id, output, quiet, resume, progress, hasher, timeout, retries, cancel):  # noqa: A002
        name = id.removeprefix("id of ")
        data = self.files[name]
        temporary = Path(f"{output}abcdefgh.part")
        held = temporary.read_bytes() if resume and temporary.exists() else b""
        if held:
            self.resumed.append(name)
            hasher.update(held)
        stop = self.break_after.pop(name, len(data))
        hasher.update(data[len(held) : stop])
        temporary.write_bytes(data[:stop])
        progress(stop, len(data))
        if stop < len(data):
            raise self.exceptions.DownloadError(
                "Too many users have viewed or downloaded this file recently."
            )
        temporary.replace(output)
        return output


@pytest.fixture
def drive(monkeypatch):
    fake = FakeDrive()
    monkeypatch.setitem(sys.modules, "gdown", fake)
    return fake


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def test_parts_are_listed_fetched_and_joined(drive, store):
    download(store, MODEL, Silent())
    assert store.status(MODEL).state is State.VERIFIED
    names = [path.name for path in store.paths(MODEL, MODEL.files[0])]
    assert names == list(PARTS)
    assert not store.unfinished(MODEL, MODEL.files[0])


def test_an_exceeded_quota_says_how_to_go_on_by_hand_and_keeps_what_came(drive, store):
    drive.break_after["t_part_ab"] = 1000
    with pytest.raises(WeightsError) as error:
        download(store, MODEL, Silent())
    message = str(error.value)
    assert "Too many users" in message
    assert "https://drive.google.com/drive/folders/folder-id" in message
    assert "nsarm weights import" in message
    assert store.status(MODEL).state is State.PARTIAL
    assert store.status(MODEL).held == len(PARTS["t_part_aa"]) + 1000
    download(store, MODEL, Silent())
    assert drive.resumed == ["t_part_ab"]
    assert store.status(MODEL).state is State.VERIFIED


def test_a_part_that_was_whole_when_the_process_died_is_not_fetched_again(drive, store):
    folder = store.downloads("large") / "transformer"
    folder.mkdir(parents=True)
    (folder / "t_part_aa.drive").write_bytes(PARTS["t_part_aa"])
    del drive.files["t_part_aa"]
    drive.files = {"t_part_aa": b"never asked for", **drive.files}
    download(store, MODEL, Silent())
    assert store.status(MODEL).state is State.VERIFIED


def test_a_folder_that_cannot_be_listed_says_how_to_go_on_by_hand(drive, store):
    drive.listing_fails = True
    with pytest.raises(WeightsError, match=r"folder-id: status code 500; fetch the files in a"):
        download(store, MODEL, Silent())


def test_a_folder_without_the_parts_is_an_error(drive, store):
    drive.files = {"other": b""}
    with pytest.raises(WeightsError, match=r"has no file named t_part_\*; fetch the files"):
        download(store, MODEL, Silent())


def test_without_gdown_it_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(WeightsError, match=r"pip install 'nsarm\[drive\]'; or fetch the files"):
        download(store, MODEL, Silent())


def test_a_part_damaged_on_the_way_is_told_by_the_join(drive, store):
    drive.files["t_part_aa"] = PARTS["t_part_aa"][::-1]
    with pytest.raises(WeightsError, match=r"join to the md5 \w+ instead of"):
        download(store, MODEL, Silent())
    assert store.status(MODEL).state is State.DAMAGED
