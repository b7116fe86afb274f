"""Shards behind URLs and commands are read like files, one at a time, and leave nothing."""

import collections
import errno
import http.server
import os
import pickle
import shutil
import tarfile
import threading
import types

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training import spool as spool_module
from nsarm_cli.training import stream
from nsarm_cli.training.config import PriorConfig, TokenizerConfig
from nsarm_cli.training.feed import training_batches
from nsarm_cli.training.inspection import inspect
from nsarm_cli.training.patterns import find_sources
from nsarm_cli.training.spool import Spool
from nsarm_cli.training.stream import StreamedOrder

CPU = torch.device("cpu")
PICTURES = 4


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(spool_module, "_PAUSE_S", 0.0)


@pytest.fixture
def shards(tmp_path):
    """Three shards of four pictures each; shade and name say which is which."""
    folder = tmp_path / "served"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(PICTURES):
                size = (24, 32) if i == 3 else (32, 32)
                path = tmp_path / f"{shard}-{i}.png"
                Image.fromarray(np.full((*size, 3), 60 * shard + 10 * i, np.uint8)).save(path)
                archive.add(path, path.name)
    return folder


@pytest.fixture
def server(shards):
    """A web server of the shards, which counts what it is asked for."""
    asked = collections.Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(shards))

        def do_GET(self):
            asked[self.path] += 1
            super().do_GET()

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()


def order_of(sources, spool=None, **changes):
    options = {"part": (0, 2), "per_shard": 4, "batch": 2, "seed": 0} | changes
    return StreamedOrder(sources, spool or Spool(), **options)


def urls(server):
    return [f"{server[0]}/{shard}.tar" for shard in range(3)]


def names(order, steps, places=(0, 1)):
    return [[order.picture(s, p, 0)[0].name for p in places] for s in steps]


def test_each_visit_shows_its_shard_whole_and_an_epoch_shows_all_shards(server):
    shown = names(order_of(urls(server)), range(6))
    visits = [shown[i] + shown[i + 1] for i in (0, 2, 4)]
    for visit in visits:
        assert len(set(visit)) == PICTURES
        assert len({name[0] for name in visit}) == 1
    assert {visit[0][0] for visit in visits} == {"0", "1", "2"}


def test_a_later_step_is_the_same_whatever_came_before(server):
    whole = names(order_of(urls(server)), range(8))
    assert names(order_of(urls(server)), [5, 2, 7]) == [whole[5], whole[2], whole[7]]


def test_processes_visit_different_shards(server):
    one = order_of(urls(server), part=(0, 1), batch=3)
    two, three = (order_of(urls(server), part=(i, 1), batch=3) for i in (1, 2))
    seen = [names(o, range(4), (p,)) for p, o in enumerate((one, two, three))]
    assert sorted(rank[0][0][0] for rank in seen) == ["0", "1", "2"]
    assert all(len({name[0] for (name,) in rank}) == 1 for rank in seen)


def test_a_short_shard_is_shown_again_and_a_long_one_in_part(server):
    again = names(order_of(urls(server), per_shard=8), range(4))
    counts = collections.Counter(name for batch in again for name in batch)
    assert set(counts.values()) == {2}
    part = names(order_of(urls(server), per_shard=2), range(3))
    assert len({batch[0][0] for batch in part}) == 3


def test_shards_are_fetched_once_and_old_ones_are_removed(server):
    spool = Spool()
    order = order_of(urls(server), spool, per_shard=2)
    names(order, range(3))
    assert all(count == 1 for count in server[1].values())
    names(order, range(3, 30))
    assert len(list(spool.folder.glob("*.tar"))) <= 3
    folder, copy = spool.folder, pickle.loads(pickle.dumps(spool))  # noqa: S301
    for thread in threading.enumerate():
        if thread.name == "fetch-ahead":
            thread.join()
    assert copy.folder == folder
    del copy
    assert folder.exists()
    del order, spool
    assert not folder.exists()


def test_a_command_gives_what_the_file_has(server, shards):
    piped = order_of([f"pipe:cat '{shards}/{shard}.tar' | cat" for shard in range(3)])
    assert names(piped, range(6)) == names(order_of(urls(server)), range(6))


def test_shapes_of_a_shard_have_steps_of_their_own(server):
    order = order_of(urls(server), ratios=(1.0, 0.75), per_shard=40)
    ratios = [order.ratio(step) for step in range(40)]
    assert 0 < ratios.count(0.75) < 30
    for step, ratio in enumerate(ratios):
        assert (order.picture(step, 0, 0)[0].name[-5] == "3") == (ratio == 0.75)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{url}/absent.tar", "HTTP Error 404"),
        ("{url}/absent.tar?token=secret", "HTTP Error 404"),
        ("pipe:exit 3", "the command ended with 3"),
        ("pipe:echo no tar file", "not a readable tar shard"),
        ("pipe:head -c 3000 '{shards}/0.tar'", "not a readable tar shard"),
        ("pipe:tar -cf - -T /dev/null", "has no pictures"),
        ("http://127.0.0.1:9/0.tar", "cannot be fetched"),
    ],
)
def test_a_shard_that_cannot_be_had_is_named_and_another_takes_its_place(
    server, shards, source, reason
):
    bad = source.format(url=server[0], shards=shards)
    order = order_of([bad])
    with pytest.raises(ImageError) as error:
        order.picture(0, 0, 0)
    assert str(error.value).startswith(f"{bad.removesuffix('?token=secret')}: ")
    assert reason in str(error.value)

    mixed = order_of([*urls(server), bad])
    at = next(v for v in range(4) if mixed.source(v) == bad)
    with pytest.raises(ImageError):
        mixed.picture(2 * at, 0, 0)
    record, _ = mixed.picture(2 * at, 0, 1)
    assert record.name.endswith(".png")
    with pytest.raises(ImageError):  # told once more without another try
        mixed.picture(2 * at, 0, 0)


def test_a_download_cut_short_is_tried_again(server, monkeypatch):
    lengths = iter([10**6, None])
    real = spool_module.urllib.request.urlopen

    def lying(*arguments, **options):
        answer = real(*arguments, **options)
        claimed = next(lengths)
        if claimed:
            answer.headers.replace_header("Content-Length", str(claimed))
        return answer

    monkeypatch.setattr(spool_module.urllib.request, "urlopen", lying)
    assert Spool().get(urls(server)[0]).stat().st_size == 10240
    assert server[1]["/0.tar"] == 2


@pytest.mark.parametrize("moment", ["listed", "sorted", "decoded"])
def test_a_shard_that_another_worker_removes_is_fetched_again(server, monkeypatch, moment):
    """It may do so at any moment between looking for the file and reading from it."""
    ratios = (1.0, 0.75)
    expected = names(order_of(urls(server), ratios=ratios), range(4))
    spool, left = Spool(), [2]
    name = {"listed": "list_shard", "sorted": "buckets", "decoded": "decode"}[moment]
    real = getattr(stream, name)

    def remove_and_go_on(*arguments):
        if left[0]:
            left[0] -= 1
            for path in spool.folder.glob("*.tar"):
                path.unlink()
        return real(*arguments)

    monkeypatch.setattr(stream, name, remove_and_go_on)
    assert names(order_of(urls(server), spool, ratios=ratios), range(4)) == expected
    assert left == [0]

    left[0] = 1000
    monkeypatch.setattr(StreamedOrder, "_fetch_ahead", lambda *_: None)
    with pytest.raises(ImageError, match=r"\.tar: was removed again and again .* per_shard higher"):
        order_of(urls(server), spool, ratios=ratios).picture(0, 0, 0)


def test_a_shard_in_use_is_the_last_to_be_removed(server):
    spool = Spool()
    order = order_of(urls(server)[:1], spool, per_shard=100)
    names(order, range(3))
    (path,) = spool.folder.glob("*.tar")
    os.utime(path, (0, 0))
    names(order, [3])
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize("kind", ["url", "pipe"])
def test_a_full_disk_is_named_and_not_the_network(server, shards, monkeypatch, kind):
    """A command only says that it failed, so the disk itself is asked."""
    source = urls(server)[0]
    if kind == "pipe":
        source = f"pipe:head -c 3000 '{shards}/0.tar'; exit 1"
        full = types.SimpleNamespace(free=0)
        monkeypatch.setattr(spool_module.shutil, "disk_usage", lambda _folder: full)
    else:

        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(spool_module.shutil, "copyfileobj", fail)
    spool = Spool()
    with pytest.raises(ConfigError) as error:
        order_of([source], spool).picture(0, 0, 0)
    assert str(error.value).startswith(
        f"{spool.folder}: cannot hold shards (No space left on device); set TMPDIR to a folder"
    )
    with pytest.raises(ConfigError, match="cannot hold shards"):
        inspect(find_sources([source]), 32, None)
    assert list(spool.folder.glob("*.part")) == []
    assert server[1].total() <= 2  # none is tried again


def test_a_lost_folder_is_named_too(server):
    spool = Spool()
    shutil.rmtree(spool.folder)
    spool.folder.write_text("")
    with pytest.raises(ConfigError, match=r"nsarm-shards-.*: cannot hold shards .*; set TMPDIR"):
        spool.get(urls(server)[0])
    spool.folder.unlink()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_reads_shards_from_elsewhere(server, micro_config, workers):
    config = TokenizerConfig(steps=6, batch=2, crop=32, workers=workers, per_shard=4)
    data = [f"{server[0]}/{{0..2}}.tar"]
    whole = list(training_batches(config, micro_config, data, CPU)(0))
    rest = list(training_batches(config, micro_config, data, CPU)(4))
    assert len(whole) == 6
    assert torch.equal(whole[4].hr, rest[0].hr)
    assert server[1].total() <= 10  # each process once per shard, however many workers


def test_a_run_of_several_shapes_reads_them_too(server, micro_config):
    config = PriorConfig(steps=8, batch=2, crop=64, workers=0, ratios=(1.0, 0.75), per_shard=8)
    batches = training_batches(config, micro_config, urls(server), CPU)(0)
    assert {tuple(batch.hr.shape[-2:]) for batch in batches} == {(64, 64), (56, 72)}
