"""Files of the Hub are found with size, digest and commit; the cache goes first."""

import hashlib
import json

import pytest

from loopback import COMMIT
from nsarm_cli.weights.entries import HubSource
from nsarm_cli.weights.http import HttpRemote
from nsarm_cli.weights.hub import find_on_hub, find_parts_on_hub
from nsarm_cli.weights.remote import LocalRemote, SourceError, Transfer

DATA = b"weights of the hub"
SHA256 = hashlib.sha256(DATA).hexdigest()
SOURCE = HubSource("someone/large", None, "pretrained/w.pth")


@pytest.fixture
def server(hub_endpoint):
    return hub_endpoint


def test_a_file_is_found_with_what_the_hub_says_of_it(server, tmp_path):
    server.put("/someone/large/resolve/main/pretrained/w.pth", DATA)
    server.put(f"/someone/large/resolve/{COMMIT}/pretrained/w.pth", DATA)
    remote = find_on_hub(SOURCE)
    assert isinstance(remote, HttpRemote)
    assert (remote.name, remote.size, remote.digests) == ("w.pth", len(DATA), {"sha256": SHA256})
    assert COMMIT in remote.url
    assert remote.receive(tmp_path / "w", ("sha256",), Transfer(), resume=True)["sha256"] == SHA256


def test_a_small_file_has_the_digest_that_git_gives_it(server, tmp_path):
    git = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA, usedforsecurity=False).hexdigest()
    server.put(f"/someone/large/resolve/{COMMIT}/c.json", DATA)
    server.tags[f"/someone/large/resolve/{COMMIT}/c.json"] = git
    remote = find_on_hub(HubSource("someone/large", COMMIT, "c.json"))
    assert remote.digests == {"git": git}
    assert remote.receive(tmp_path / "c", ("git",), Transfer(), resume=True) == {"git": git}


def test_the_token_of_the_user_is_sent(server, monkeypatch):
    path = "/someone/large/resolve/main/pretrained/w.pth"
    server.put(path, DATA)
    server.private.add(path)
    with pytest.raises(SourceError, match=r"HTTP 401|hf auth login"):
        find_on_hub(SOURCE)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert find_on_hub(SOURCE).headers["authorization"] == "Bearer secret"


def test_a_file_that_is_not_there_is_an_error_of_the_source(server):
    with pytest.raises(SourceError, match=r"someone/large: has no file pretrained/w\.pth"):
        find_on_hub(SOURCE)


def test_offline_mode_asks_nobody(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        find_on_hub(SOURCE)
    assert server.requests == []


def test_the_cache_of_the_library_is_used_even_offline(server, monkeypatch, hub_cache):
    blob = hub_cache("someone/large", COMMIT, "pretrained/w.pth", DATA)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    remote = find_on_hub(HubSource("someone/large", COMMIT, "pretrained/w.pth"))
    assert isinstance(remote, LocalRemote)
    assert (remote.path, remote.size, remote.digests) == (blob, len(DATA), {"sha256": SHA256})


def test_parts_are_found_by_their_pattern(server):
    listing = [
        {"type": "file", "path": path, "size": len(DATA), "oid": "0" * 40}
        for path in ("x_part_ab", "x_part_aa", "other", "sub/x_part_ac")
    ]
    server.put("/api/models/someone/large/tree/main", json.dumps(listing).encode())
    for name in ("x_part_aa", "x_part_ab"):
        server.put(f"/someone/large/resolve/main/{name}", DATA)
    found = find_parts_on_hub(HubSource("someone/large", None, ""), "x_part_*")
    assert sorted(remote.name for remote in found) == ["x_part_aa", "x_part_ab"]
    with pytest.raises(SourceError, match=r"has no files named y_\*"):
        find_parts_on_hub(HubSource("someone/large", None, ""), "y_*")
