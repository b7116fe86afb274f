"""A model folder comes from the Hub: only its files, of the revision asked for, and from the cache.

The Hub is a server on loopback. The command line runs in a process of its own, because
huggingface_hub reads its settings when it is imported.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from nsarm_cli.weights.snapshot import is_repository

MAIN, OLD = "a" * 40, "b" * 40
REVISIONS = {"main": MAIN, MAIN: MAIN, "v1": OLD, OLD: OLD}


class Hub:
    """Folders by commit; remembers what was asked for."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.fetched: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if found := re.match(r"/api/models/me/micro/(?:revision|tree)/([^/?]+)", path):
            return self.about(found[1], tree="/tree/" in path)
        if found := re.match(r"/me/micro/resolve/([^/]+)/(.+)", path):
            commit = REVISIONS.get(found[1])
            if commit is None:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            file = self.folders[commit] / found[2]
            if not file.is_file():
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            self.fetched.append(f"{commit[0]}/{found[2]}")
            headers = {"X-Repo-Commit": commit, "ETag": f'"{commit[0]}{found[2]}"'}
            return 200, headers, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def about(self, revision: str, *, tree: bool) -> tuple[int, dict[str, str], bytes]:
        commit = REVISIONS.get(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = [path for path in sorted(self.folders[commit].rglob("*")) if path.is_file()]
        names = [str(path.relative_to(self.folders[commit])) for path in files]
        if tree:
            entries = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0" * 40}
                for name, path in zip(names, files, strict=True)
            ]
            return 200, {}, json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in names]
        values = {"id": "me/micro", "sha": commit, "siblings": siblings, "private": False}
        return 200, {}, json.dumps(values | {"downloads": 0, "tags": []}).encode()


@pytest.fixture
def hub(folder, tmp_path):
    """A repository whose old revision has another model's name."""
    hub = Hub()
    for commit, name in ((MAIN, "new"), (OLD, "old")):
        hub.folders[commit] = tmp_path / "hub" / commit
        shutil.copytree(folder, hub.folders[commit])
        path = hub.folders[commit] / "config.json"
        values = json.loads(path.read_text())
        values["config"]["name"] = name
        path.write_text(json.dumps(values))
        (hub.folders[commit] / "pytorch_model.bin").write_bytes(b"code")
        (hub.folders[commit] / "setup.py").write_text("raise SystemExit")
        (hub.folders[commit] / "text_encoder").mkdir()
        (hub.folders[commit] / "text_encoder" / "model.safetensors").write_bytes(b"large")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    thread.join()


SCRIPT = """
import sys
from nsarm_cli.cli.main import main
codes = []
for line in sys.stdin.read().splitlines():
    codes.append(main(["upscale", "photo.png", "--overwrite", "--model", *line.split()]))
print("codes", *codes)
"""


def run(tmp_path, url, *models, **settings):
    """Upscale a picture with each model in turn, in one process."""
    Image.new("RGB", (16, 16), "teal").save(tmp_path / "photo.png")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    source = Path(__file__).parents[2] / "src"
    environment |= {
        "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(source),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "2", **settings,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(models), cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert last.startswith("codes "), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return [int(code) for code in last.split()[1:]], errors


def test_models_of_the_hub_run_and_run_again_without_it(hub, tmp_path):
    codes, errors = run(tmp_path, hub.url, "me/micro", "me/micro@v1")
    assert (codes, errors) == ([0, 0], [])
    # Nothing but the model's own files; no second copy of the small ones.
    names = ("config.json", "model.safetensors")
    assert set(hub.fetched) == {f"{commit}/{name}" for commit in "ab" for name in names}
    cached = sorted(p.name for p in (tmp_path / "hf").rglob("snapshots/*/*"))
    assert cached == ["config.json"] * 2 + ["model.safetensors"] * 2
    codes, errors = run(tmp_path, "http://127.0.0.1:1", "me/micro", HF_HUB_OFFLINE="1")
    assert (codes, errors) == ([0], [])


def test_what_is_wrong_with_a_repository_is_said(hub, tmp_path):
    (hub.folders[OLD] / "config.json").write_text('{"family": "car"}')
    (hub.folders[MAIN] / "config.json").unlink()
    codes, errors = run(
        tmp_path, hub.url, "me/micro", "me/micro@v1", "me/micro@v9", "you/micro", "a/b/c"
    )
    assert codes == [4, 4, 4, 4, 4]
    assert "me/micro: the repository has no config.json, so it is no model folder" in errors[0]
    assert 'config.json: family "car" is unknown' in errors[1]
    assert "me/micro@v9: the repository has no revision v9" in errors[2]
    assert "you/micro: is neither a folder here nor a model on the Hub" in errors[3]
    assert "a/b/c: is not a folder; give a known model's name, a folder that nsarm" in errors[4]
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_without_the_hub_and_the_cache_a_sentence_says_so(tmp_path):
    codes, errors = run(tmp_path, "http://127.0.0.1:1", "me/micro")
    assert codes == [4]
    assert "is not a folder here, and the Hub cannot be reached" in errors[0]


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("user/repo", True),
        ("user/repo@v1.0", True),
        ("user/repo@refs/pr/5", True),
        ("nsarm-8b", False),
        ("./user/repo", False),
        ("../repo", False),
        ("/user/repo", False),
        ("a/b/c", False),
        ("user/repo@", False),
        ("user/..", False),
    ],
)
def test_the_form_of_a_repository(text, yes):
    assert is_repository(text) is yes
