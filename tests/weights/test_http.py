"""A file comes over HTTP whole and right, or an error says why, and nothing is lost."""

import hashlib
import threading
from pathlib import Path

import pytest

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights import http
from nsarm_cli.weights.http import HttpRemote
from nsarm_cli.weights.remote import CancelledError, SourceError, Transfer

DATA = bytes(range(256)) * 1000 + b"end"
SIZE = len(DATA)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http, "WAITS_S", (0.0,) * 5)


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "weights.pth.partial"


def receive(server, partial, *, size=SIZE, resume=True, counts=None, cancel=None):
    remote = HttpRemote("weights.pth", "loopback", size, url=f"{server.url}/w")
    transfer = Transfer(
        (lambda _: None) if counts is None else counts.append, cancel or threading.Event()
    )
    return remote.receive(partial, ("sha256",), transfer, resume=resume)


def test_a_file_comes_with_its_digest_and_every_byte_is_counted(server, partial):
    server.put("/w", DATA)
    counts = []
    assert receive(server, partial, counts=counts) == {"sha256": SHA256}
    assert partial.read_bytes() == DATA
    assert sum(counts) == len(DATA)


def test_a_broken_connection_is_taken_up_where_it_broke(server, partial):
    server.put("/w", DATA).cuts = [100_000, 50_000, 0]
    assert receive(server, partial) == {"sha256": SHA256}
    assert server.ranges("/w") == ["", "bytes=100000-", "bytes=150000-", "bytes=150000-"]


def test_what_an_earlier_run_left_is_gone_on_from_and_hashed(server, partial):
    server.put("/w", DATA)
    partial.write_bytes(DATA[:1000])
    counts = []
    assert receive(server, partial, counts=counts) == {"sha256": SHA256}
    assert server.ranges("/w") == ["bytes=1000-"]
    assert sum(counts) == len(DATA)


def test_a_whole_file_left_by_an_earlier_run_is_not_asked_for(server, partial):
    partial.write_bytes(DATA)
    assert receive(server, partial) == {"sha256": SHA256}
    assert server.requests == []


def test_without_leave_to_resume_it_begins_anew(server, partial):
    server.put("/w", DATA)
    partial.write_bytes(b"something else")
    assert receive(server, partial, resume=False) == {"sha256": SHA256}
    assert server.ranges("/w") == [""]


def test_more_than_the_file_can_hold_is_thrown_away(server, partial):
    server.put("/w", DATA)
    partial.write_bytes(DATA + b"more")
    assert receive(server, partial) == {"sha256": SHA256}


def test_a_server_that_does_not_resume_sends_everything_again(server, partial):
    server.put("/w", DATA).ignore_range = True
    partial.write_bytes(b"x" * 1000)
    counts = []
    assert receive(server, partial, counts=counts) == {"sha256": SHA256}
    assert sum(counts) == len(DATA)


def test_a_server_that_sends_another_range_is_not_believed(server, partial):
    wrong = server.put("/w", DATA)
    wrong.cuts, wrong.shift = [1000], 7
    assert receive(server, partial) == {"sha256": SHA256}
    assert server.ranges("/w") == ["", "bytes=1000-", ""]


def test_a_file_that_changes_between_attempts_comes_from_one_release(server, partial):
    server.put("/w", DATA[::-1]).cuts = [50_000]

    def swap(_count, swapped=[]):  # noqa: B006
        if not swapped:
            swapped.append(server.put("/w", DATA))

    remote = HttpRemote("weights.pth", "loopback", len(DATA), url=f"{server.url}/w")
    assert remote.receive(partial, ("sha256",), Transfer(swap), resume=True) == {"sha256": SHA256}


def test_busy_answers_are_waited_out(server, partial):
    server.put("/w", DATA).statuses = [503, 429, 500]
    assert receive(server, partial) == {"sha256": SHA256}


def test_a_server_that_stays_broken_is_given_up_and_what_came_is_kept(server, partial):
    wrong = server.put("/w", DATA)
    wrong.cuts = [100_000] + [0] * 20
    with pytest.raises(SourceError, match=r"broke off at byte 100000 .* what came is kept"):
        receive(server, partial)
    assert partial.read_bytes() == DATA[:100_000]


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "it is not there"), (403, "hf auth login"), (418, "HTTP 418")]
)
def test_a_refusal_is_not_tried_again(server, partial, status, advice):
    server.put("/w", DATA).statuses = [status]
    with pytest.raises(SourceError, match=advice):
        receive(server, partial)
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_refused_before_it_comes(server, partial, size):
    server.put("/w", DATA)
    with pytest.raises(SourceError, match=f"has {len(DATA)} bytes there, and should have {size}"):
        receive(server, partial, size=size)
    assert not partial.exists()


def test_a_server_that_announces_more_than_it_has_is_given_up(server, partial):
    server.put("/w", DATA).announce = 5
    with pytest.raises(SourceError, match=r"the server has a shorter file|ended early|peer closed"):
        receive(server, partial, size=None)
    assert len(server.requests) < 20


def test_an_unknown_host_is_an_error_of_the_source(partial):
    remote = HttpRemote("weights.pth", "nowhere", url="http://127.0.0.1:1/w")
    with pytest.raises(SourceError, match=r"nowhere: weights\.pth broke off at byte 0"):
        remote.receive(partial, (), Transfer(), resume=True)


def test_offline_mode_asks_nobody(server, partial, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        receive(server, partial)
    assert server.requests == []


def test_a_full_disk_is_an_error_that_says_what_to_do(server, partial):
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    server.put("/w", DATA)
    partial.symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"cannot be written: No space left .* NSARM_HOME"):
        receive(server, partial)


def test_a_cancelled_transfer_keeps_what_came(server, partial):
    server.put("/w", DATA)
    cancel = threading.Event()

    class Stop(list):
        def append(self, count):
            cancel.set()

    with pytest.raises(CancelledError):
        receive(server, partial, counts=Stop(), cancel=cancel)
    held = partial.read_bytes()
    assert 0 < len(held) < len(DATA)
    assert DATA.startswith(held)
