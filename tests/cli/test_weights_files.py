"""`nsarm weights download`, `verify`, `import` and `remove`, as a user runs them."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading

import pytest

from loopback import COMMIT, serving

VAE = bytes(range(256)) * 4000


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub on loopback with one file, and a catalogue that names it."""
    with serving() as state:
        for revision in ("main", COMMIT):
            state.put(f"/someone/large/resolve/{revision}/vae.pth", VAE)
        catalog = tmp_path / "weights.toml"
        catalog.write_text(f"""
[models.large]
family = "nsarm"
[[models.large.files]]
role = "vae"
path = "vae/vae.pth"
sha256 = "{hashlib.sha256(VAE).hexdigest()}"
sources = [{{ hub = "someone/large" }}]
""")
        monkeypatch.setenv("NSARM_CATALOG", str(catalog))
        monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield state


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The settings of huggingface_hub, which it reads once, for commands of this process."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "home" / "downloads" / "large"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nsarm_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_download_brings_the_files_and_prints_their_folder(run_cli, hub, folder):
    done = run_cli("weights", "download", "large")
    assert (done.code, done.out) == (0, f"{folder}\n")
    assert "vae/vae.pth: verified" in done.err
    assert "next: nsarm weights convert large" in done.err
    assert (folder / "vae/vae.pth").read_bytes() == VAE


def test_a_killed_download_goes_on_where_it_stopped(server, folder):
    """Three processes: the first is killed, the second asked to end, the third finishes."""
    path = f"/someone/large/resolve/{COMMIT}/vae.pth"
    partial = folder / "vae/vae.pth.partial"
    held = 0
    for sent, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        server.wrong[path].stall = threading.Event()
        server.wrong[path].stall_at = held + 400_000
        process = start("weights", "download", "large")
        while process.poll() is None and not (
            partial.is_file() and partial.stat().st_size > held + 300_000
        ):
            pass
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, sent)
        server.wrong[path].stall.set()
        _, err = process.communicate(timeout=120)
        assert process.returncode == code
        assert "Traceback" not in err
        held = partial.stat().st_size
        assert VAE.startswith(partial.read_bytes())
    server.wrong[path].stall = None
    server.requests.clear()
    last = start("weights", "download", "large")
    out, err = last.communicate(timeout=120)
    assert (last.returncode, out) == (0, f"{folder}\n"), err
    assert server.ranges(path) == [f"bytes={held}-"]
    assert (folder / "vae/vae.pth").read_bytes() == VAE
    assert not partial.exists()


def test_a_failed_download_is_one_sentence_and_code_4(run_cli, hub):
    hub.files.clear()
    done = run_cli("weights", "download", "large")
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines()[-1].startswith("error: vae/vae.pth: could not be had: ")
    assert "has no file vae.pth" in done.err


def test_there_is_nothing_to_fetch_of_a_shipped_model(run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
    done = run_cli("weights", "download", "nsarm-nano")
    assert done.code == 0
    assert "comes with nsarm" in done.err
    assert done.out.endswith("nsarm-nano\n")


def test_verify_says_the_state_and_fails_on_damage(run_cli, hub, folder):
    assert run_cli("weights", "verify", "large").code == 4
    assert run_cli("weights", "verify").out == ""
    run_cli("weights", "download", "large")
    assert run_cli("weights", "verify").out == "large: verified\n"
    (folder / "vae/vae.pth").write_bytes(VAE[::-1])
    done = run_cli("weights", "verify", "large")
    assert (done.code, done.out) == (4, "large: damaged\n")
    assert "error: " in done.err
    assert "so it is damaged; nsarm weights download large" in done.err


def test_verify_reads_the_shipped_model_too(run_cli):
    assert run_cli("weights", "verify", "nsarm-nano").out == "nsarm-nano: verified\n"


def test_import_takes_a_file_in(run_cli, server, folder, tmp_path):
    (tmp_path / "vae.pth").write_bytes(VAE)
    done = run_cli("weights", "import", "large", tmp_path / "vae.pth")
    assert (done.code, done.out) == (0, f"{folder}\n")
    assert server.requests == []
    done = run_cli("weights", "import", "large", tmp_path / "absent.pth")
    assert done.code == 4
    assert "is no file" in done.err


def test_remove_shows_what_it_deletes_and_asks(run_cli, server, folder, tmp_path, monkeypatch):
    assert "nothing is stored" in run_cli("weights", "remove", "large").err
    (tmp_path / "vae.pth").write_bytes(VAE)
    run_cli("weights", "import", "large", tmp_path / "vae.pth")
    done = run_cli("weights", "remove", "large")
    assert done.code == 2
    assert "--yes" in done.err
    assert f"to delete: {folder / 'vae/vae.pth'}" in done.err

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    done = run_cli("weights", "remove", "large")
    assert "nothing was deleted" in done.err
    assert folder.exists()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run_cli("weights", "remove", "large").out.strip() == "large: removed"
    assert not folder.exists()
    assert (tmp_path / "vae.pth").exists()


def test_remove_with_yes_asks_nothing(run_cli, server, folder, tmp_path):
    (tmp_path / "vae.pth").write_bytes(VAE)
    run_cli("weights", "import", "large", tmp_path / "vae.pth")
    assert run_cli("weights", "remove", "large", "--yes").code == 0
    assert not folder.exists()
