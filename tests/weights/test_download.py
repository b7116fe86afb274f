"""A model comes whole, checked and remembered, whatever happens on the way."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from collections import namedtuple

import pytest
from tests.silent import Silent

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights import http
from nsarm_cli.weights.catalog import load_catalog
from nsarm_cli.weights.download import download
from nsarm_cli.weights.intake import opened
from nsarm_cli.weights.record import read_record
from nsarm_cli.weights.store import State, Store
from nsarm_cli.weights.verify import verify

VAE = bytes(range(256)) * 2000
TOKENIZER = b'{"words": []}'


def checkpoint() -> bytes:
    """A zip archive, as PyTorch writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("t/data/0", bytes(range(251)) * 1000)
    return buffer.getvalue()


TRANSFORMER = checkpoint()
PART = 100_000
PARTS = {
    f"t_part_a{letter}": TRANSFORMER[i * PART : (i + 1) * PART] for i, letter in enumerate("abc")
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Log(Silent):
    """Remembers how files ended, and how many bytes were counted."""

    def __init__(self):
        self.ends = {}
        self.counts = {}

    def advance(self, name, count):
        self.counts[name] = self.counts.get(name, 0) + count

    def end(self, name, outcome):
        self.ends[name] = outcome


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http, "WAITS_S", (0.0,) * 3)


@pytest.fixture
def parts(tmp_path):
    """A folder with the parts, as a source."""
    folder = tmp_path / "shared drive"
    folder.mkdir()
    for name, data in PARTS.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def load(server, hub_endpoint, parts, tmp_path):
    """Make the model of a catalogue in which some text is replaced."""
    server.put("/files/vae.pth", VAE)
    server.put("/someone/large/resolve/main/tokenizer.json", TOKENIZER)
    server.put(f"/someone/large/resolve/{'c' * 40}/tokenizer.json", TOKENIZER)

    def make(*changes: tuple[str, str]):
        text = f"""
[models.large]
family = "nsarm"
[[models.large.files]]
role = "vae"
path = "vae/vae.pth"
sha256 = "{sha256(VAE)}"
sources = [{{ url = "{server.url}/files/vae.pth" }}]
[[models.large.files]]
role = "tokenizer"
path = "tokenizer/tokenizer.json"
sources = [{{ hub = "someone/large" }}]
[[models.large.files]]
role = "transformer"
path = "transformer/t.pth"
parts = "t_part_*"
md5 = "{md5(TRANSFORMER)}"
sources = [{{ folder = "{parts}" }}]
"""
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "weights.toml"
        path.write_text(text)
        return load_catalog(path)["large"]

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def states(store, model):
    return {file.entry.role: file.state.value for file in store.status(model).files}


def test_everything_comes_and_is_verified(load, store):
    model, log = load(), Log()
    download(store, model, log)
    assert store.status(model).state is State.VERIFIED
    folder = store.downloads("large")
    assert (folder / "vae/vae.pth").read_bytes() == VAE
    assert b"".join(path.read_bytes() for path in store.paths(model, model.files[2])) == TRANSFORMER
    assert set(log.ends.values()) <= {"verified", "unchecked"}
    assert log.counts["vae/vae.pth"] == len(VAE)
    assert log.counts["transformer/t.pth"] == len(TRANSFORMER)
    assert not list(folder.rglob("*.partial"))


def test_a_second_run_asks_for_nothing(load, store, server):
    model = load()
    download(store, model, Silent())
    server.requests.clear()
    download(store, model, Silent())
    assert server.requests == []


def test_no_second_copy_of_the_parts_is_made(load, store):
    model = load()
    download(store, model, Silent())
    assert store.status(model).held == len(VAE) + len(TOKENIZER) + len(TRANSFORMER)


def test_three_interruptions_are_gone_on_from(load, store, server):
    model = load()
    for reached in (100_000, 200_000, 300_000):
        server.wrong["/files/vae.pth"].cuts = [100_000] + [0] * 9
        with pytest.raises(WeightsError, match=r"vae/vae\.pth: could not be had: .*broke off at"):
            download(store, model, Silent())
        assert states(store, model)["vae"] == "partial"
        (partial,) = store.unfinished(model, model.files[0])
        assert partial.read_bytes() == VAE[:reached]
    server.wrong["/files/vae.pth"].cuts = []
    server.requests.clear()
    download(store, model, Silent())
    assert server.ranges("/files/vae.pth") == ["bytes=300000-"]
    assert store.status(model).state is State.VERIFIED


def test_one_file_that_fails_does_not_stop_the_others(load, store, server):
    server.wrong["/files/vae.pth"].statuses = [404]
    model = load()
    with pytest.raises(WeightsError, match="HTTP 404"):
        download(store, model, Silent())
    assert states(store, model) == {
        "vae": "missing",
        "tokenizer": "verified",
        "transformer": "verified",
    }


def test_several_failures_are_one_error_with_all_reasons(load, store, parts):
    shutil.rmtree(parts)
    model = load(("/files/vae.pth", "/files/absent"))
    with pytest.raises(WeightsError) as error:
        download(store, model, Silent())
    assert str(error.value).startswith("2 files could not be had: (1) ")
    assert "has no file named t_part_*" in str(error.value)
    assert "it is not there" in str(error.value)


def test_a_flipped_byte_is_kept_aside_and_explained_and_the_next_run_mends_it(load, store, server):
    server.wrong["/files/vae.pth"].flip = 1234
    model = load()
    with pytest.raises(WeightsError, match=r"has the sha256 \w+ instead of .* it is kept as"):
        download(store, model, Silent())
    (aside,) = store.rejected(model, model.files[0])
    assert len(aside.read_bytes()) == len(VAE)
    assert states(store, model)["vae"] == "missing"
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_a_beginning_of_another_release_is_thrown_away_once(load, store):
    model = load()
    partial = store.downloads("large") / "vae/vae.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"another release")
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_the_next_source_is_asked_when_one_fails(load, store, server):
    server.put("/mirror/vae.pth", VAE)
    two = f'[{{ url = "{server.url}/absent" }}, {{ url = "{server.url}/mirror/vae.pth" }}]'
    model = load((f'[{{ url = "{server.url}/files/vae.pth" }}]', two))
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED
    source = read_record(store.downloads("large")).files["vae/vae.pth"].source
    assert source == f"{server.url}/mirror/vae.pth"


def test_a_hub_file_with_another_digest_is_refused_before_it_comes(load, store, server):
    path = "/someone/large/resolve/main/vae.pth"
    server.put(path, VAE[::-1])
    model = load((f'url = "{server.url}/files/vae.pth"', 'hub = "someone/large"'))
    with pytest.raises(WeightsError, match=r"someone/large: vae\.pth has the sha256 .* and not"):
        download(store, model, Silent())
    assert server.ranges(path) == []


def test_a_file_without_any_digest_is_present_and_left_alone(load, store):
    model = load(('hub = "someone/large"', f'folder = "{store.root.parent}"'))
    (store.root.parent / "tokenizer.json").write_bytes(TOKENIZER)
    download(store, model, Silent())
    assert states(store, model)["tokenizer"] == "present"
    download(store, model, Silent())
    assert states(store, model)["tokenizer"] == "present"


def test_too_little_room_is_said_before_anything_comes(load, store, server, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 0, 100_300_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    model = load(("sha256", f"size = {len(VAE)}\nsha256"))
    with pytest.raises(WeightsError, match=r"has 100 MB free, and 512 kB are to come.*NSARM_HOME"):
        download(store, model, Silent())
    assert server.ranges("/files/vae.pth") == []


def test_bytes_that_are_here_already_need_no_room(load, store, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 0, 100_300_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    model = load(("sha256", f"size = {len(VAE)}\nsha256"))
    partial = store.downloads("large") / "vae/vae.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(VAE[:400_000])
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_two_processes_do_not_work_on_one_model(load, store):
    model = load()
    with (
        opened(store, model),
        pytest.raises(WeightsError, match="another nsarm is working on"),
    ):
        download(store, model, Silent())
    download(store, model, Silent())


def test_a_folder_that_cannot_be_made_is_an_error(load, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be written: Not a directory; make room there"):
        download(Store(tmp_path / "file" / "home"), load(), Silent())


def test_a_missing_part_in_the_middle_is_named(load, store, parts):
    (parts / "t_part_ab").unlink()
    model = load()
    with pytest.raises(WeightsError, match=r"missing t_part_ab; the other parts are kept"):
        download(store, model, Silent())
    assert states(store, model)["transformer"] == "partial"
    (parts / "t_part_ab").write_bytes(PARTS["t_part_ab"])
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_a_missing_last_part_is_seen_by_the_digest_and_explained(load, store, parts):
    (parts / "t_part_ac").unlink()
    with pytest.raises(WeightsError, match="t_part_ab does not end as a last part does"):
        download(store, load(), Silent())


def test_swapped_parts_are_explained(load, store, parts):
    (parts / "t_part_aa").write_bytes(PARTS["t_part_ab"])
    (parts / "t_part_ab").write_bytes(PARTS["t_part_aa"])
    model = load()
    with pytest.raises(WeightsError, match="named in the wrong order; they are kept in"):
        download(store, model, Silent())
    assert states(store, model)["transformer"] == "damaged"


def test_a_wrong_md5_of_the_join_is_an_error_and_nothing_is_lost(load, store):
    model = load((md5(TRANSFORMER), "0" * 32))
    with pytest.raises(WeightsError, match=r"3 parts .* join to the md5 \w+ instead of 0000"):
        download(store, model, Silent())
    assert len(store.paths(model, model.files[2])) == 3


def test_a_part_that_changed_on_the_disk_is_named_and_fetched_again(load, store):
    model = load()
    download(store, model, Silent())
    path = store.paths(model, model.files[2])[1]
    path.unlink()  # the source is linked, so write a file of one's own
    path.write_bytes(PARTS["t_part_ab"][::-1])
    (problem,) = verify(store, model, Silent())
    assert "t_part_ab is not what it was" in str(problem)
    assert states(store, model)["transformer"] == "damaged"
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_verify_finds_damage_remembers_it_and_download_mends_it(load, store):
    model = load()
    download(store, model, Silent())
    assert verify(store, model, Silent()) == []
    tokenizer = store.downloads("large") / "tokenizer/tokenizer.json"
    tokenizer.write_bytes(TOKENIZER[::-1])
    for _ in range(2):  # also when asked again
        (problem,) = verify(store, model, Silent())
        assert "tokenizer.json: has the sha256" in str(problem)
        assert states(store, model)["tokenizer"] == "damaged"
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED
    assert [p.name for p in store.rejected(model, model.files[1])] == ["tokenizer.json.rejected"]


def test_a_file_put_there_by_hand_is_checked_and_not_fetched(load, store, server):
    model = load()
    target = store.downloads("large") / "vae/vae.pth"
    target.parent.mkdir(parents=True)
    target.write_bytes(VAE)
    download(store, model, Silent())
    assert server.ranges("/files/vae.pth") == []
    assert store.status(model).state is State.VERIFIED


def test_several_files_come_at_once(load, store, server):
    """The VAE waits in its middle until the tokenizer has come."""
    model, come = load(), threading.Event()
    server.wrong["/files/vae.pth"].stall = come

    class Release(Silent):
        def end(self, name, outcome):
            if name == "tokenizer/tokenizer.json":
                come.set()

    download(store, model, Release(), jobs=2)
    assert store.status(model).state is State.VERIFIED


def test_a_stop_in_the_middle_keeps_what_came(load, store, server):
    model = load()

    class Stop(Silent):
        def advance(self, name, count):
            if name == "vae/vae.pth":
                raise SystemExit(143)

    with pytest.raises(SystemExit):
        download(store, model, Stop())
    assert states(store, model)["vae"] == "partial"
    download(store, model, Silent())
    assert store.status(model).state is State.VERIFIED


def test_the_record_names_the_source_of_every_file(load, store):
    model = load()
    download(store, model, Silent())
    record = json.loads((store.downloads("large") / ".nsarm-record.json").read_text())
    assert record["files"]["tokenizer/tokenizer.json"]["source"] == "huggingface.co someone/large"
    assert record["listings"]["transformer/t.pth"] == list(PARTS)
    assert record["files"]["transformer/t_part_aa"]["source"].startswith("folder ")
