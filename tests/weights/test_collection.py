"""A collection of small files comes whole and checked, or not at all."""

import hashlib
from pathlib import PurePosixPath

import pytest
from filelock import FileLock

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.collection import PublishedFile, fetch_collection

FILES = {f"{part}/{n}.png": bytes([n]) * (40_000 + n) for part in ("lr", "gt") for n in range(5)}


class Told:
    """Keeps what a watcher is told."""

    def __init__(self):
        self.calls, self.count = [], 0

    def begin(self, name, total):
        self.calls.append(("begin", name, total))

    def advance(self, name, count):
        self.count += count

    def end(self, name, outcome):
        self.calls.append(("end", name, outcome))


@pytest.fixture
def files(server):
    for path, data in FILES.items():
        server.put(f"/{path}", data)
    return [
        PublishedFile(PurePosixPath(p), f"{server.url}/{p}", hashlib.sha256(d).hexdigest())
        for p, d in FILES.items()
    ]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sets" / "Some"


def content(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_all_files_come_and_are_told_of_as_one(files, folder):
    told, size = Told(), sum(map(len, FILES.values()))
    fetch_collection(folder, files, told, size=size)
    assert content(folder) == FILES
    assert told.calls == [("begin", "Some", size), ("end", "Some", "verified")]
    assert told.count == size
    assert not (folder.parent / ".Some.part").exists()


def test_what_is_there_is_left_alone(files, folder, server):
    folder.mkdir(parents=True)
    (folder / "mine").write_bytes(b"mine")
    fetch_collection(folder, files, Told())
    assert content(folder) == {"mine": b"mine"}
    assert server.requests == []


def test_a_failure_names_the_file_and_leaves_no_folder_and_the_next_run_goes_on(
    files, folder, server
):
    lost = server.files.pop("/gt/3.png")
    told = Told()
    with pytest.raises(WeightsError, match=r"/gt/3\.png: 3\.png: HTTP 404"):
        fetch_collection(folder, files, told, jobs=1)
    assert told.calls[-1] == ("end", "Some", "failed")
    assert not folder.exists()
    server.put("/gt/3.png", lost)
    before = {path for _, path, _ in server.requests}
    server.requests.clear()
    fetch_collection(folder, files, Told(), jobs=1)
    assert content(folder) == FILES
    again = {path for _, path, _ in server.requests}
    assert again < {f"/{path}" for path in FILES}
    assert again & before <= {"/gt/3.png", "/gt/4.png"}  # the last may have been cut short


def test_a_broken_file_is_resumed_and_a_damaged_one_is_refused(files, folder, server):
    server.wrong["/lr/1.png"].flip = 9
    with pytest.raises(WeightsError, match=r"/lr/1\.png: has the sha256 .* instead of"):
        fetch_collection(folder, files, Told())
    part = folder.parent / ".Some.part" / "lr"
    (part / "1.png.partial").write_bytes(FILES["lr/1.png"][:1000])
    (part / "2.png").unlink(missing_ok=True)
    (part / "2.png.partial").write_bytes(b"of another time")
    told = Told()
    fetch_collection(folder, files, told)
    assert content(folder) == FILES
    assert server.ranges("/lr/1.png")[-1] == "bytes=1000-"
    assert told.count == sum(map(len, FILES.values()))


def test_two_processes_do_not_fetch_the_same(files, folder):
    folder.parent.mkdir(parents=True)
    with (
        FileLock(folder.parent / ".Some.lock"),
        pytest.raises(WeightsError, match="another nsarm is fetching it"),
    ):
        fetch_collection(folder, files, Told())
