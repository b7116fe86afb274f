"""From the places where authors publish to a picture: everything that a user does, on loopback."""

import hashlib
import re
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.published import MICRO_8B, make_model, publish, save_parts

from loopback import COMMIT, serving
from nsarm_cli.cli.main import main
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.models.nsarm.resolver import NsarmTextResolver
from nsarm_cli.pipeline import Upscaler
from nsarm_cli.weights import http

T5_FILES = (
    ("text_encoder", "config.json"),
    ("text_encoder", "model.safetensors.index.json"),
    ("text_encoder", "model-00001-of-00002.safetensors"),
    ("text_encoder", "model-00002-of-00002.safetensors"),
    ("tokenizer", "tokenizer.json"),
    ("tokenizer", "tokenizer_config.json"),
)


class Drive(ModuleType):
    """A stand-in for gdown, whose quota ends after some bytes of each of the first downloads."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__("gdown")
        self.files = {path.name: path.read_bytes() for path in files}
        self.quota = [1000, 5000]
        error = type("DownloadError", (Exception,), {})
        stop = type("DownloadCancelled", (Exception,), {})
        self.exceptions = SimpleNamespace(DownloadError=error, DownloadCancelled=stop)

    def download_folder(self, **_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=name, path=name) for name in self.files]

    def download(self, *, id, output, resume, progress, hasher, **_):  # noqa: A002
        data, temporary = self.files[id], Path(f"{output}abcdefgh.part")
        held = temporary.read_bytes() if resume and temporary.exists() else b""
        end = len(held) + self.quota.pop(0) if self.quota else len(data)
        hasher.update(data[:end])
        temporary.write_bytes(data[:end])
        progress(min(end, len(data)), len(data))
        if end < len(data):
            raise self.exceptions.DownloadError("Too many users have viewed this file recently.")
        temporary.replace(output)


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def published(model, text_encoder_folder, tmp_path, monkeypatch):
    """The files where the catalogue says that they are: a Hub, and a Drive folder for the parts."""
    transformer, vae, t5 = publish(model, text_encoder_folder, tmp_path / "files")
    md5 = hashlib.md5(transformer.read_bytes(), usedforsecurity=False).hexdigest()
    drive = Drive(save_parts(transformer, 3))
    monkeypatch.setitem(sys.modules, "gdown", drive)
    monkeypatch.setattr(http, "WAITS_S", (0.0, 0.0))
    monkeypatch.setitem(PRESETS, MICRO_8B.name, MICRO_8B)
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NSARM_CATALOG", str(tmp_path / "weights.toml"))
    with serving() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        entries = [
            'role = "transformer"\npath = "transformer/NSARM.pth"\nparts = "NSARM_part_*"\n'
            f'md5 = "{md5}"\nsources = [{{ drive = "folder" }}]',
            'role = "vae"\npath = "vae/vae.pth"\n'
            f'sha256 = "{hashlib.sha256(vae.read_bytes()).hexdigest()}"\n'
            'sources = [{ hub = "authors/vae" }]',
        ]
        server.put(f"/authors/vae/resolve/{COMMIT}/vae.pth", vae.read_bytes())
        server.put("/authors/vae/resolve/main/vae.pth", vae.read_bytes())
        for role, name in T5_FILES:
            data = (t5 / name).read_bytes()
            server.put(f"/authors/t5/resolve/{COMMIT}/{name}", data)
            entries.append(
                f'role = "{role}"\npath = "{role}/{name}"\n'
                f'sources = [{{ hub = "authors/t5", revision = "{COMMIT}" }}]'
            )
        files = "\n".join(f"[[models.micro-8b.files]]\n{entry}" for entry in entries)
        (tmp_path / "weights.toml").write_text(f'[models.micro-8b]\nfamily = "nsarm"\n{files}\n')
        yield server


@pytest.fixture
def nsarm(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


def test_download_interrupted_three_times_verify_convert_upscale(
    published, model, tmp_path, photo, nsarm
):
    vae = published.wrong[f"/authors/vae/resolve/{COMMIT}/vae.pth"]
    for cuts in ([2000, 0, 0, 0, 0], [3000, 0, 0, 0, 0], [4000, 0, 0, 0, 0]):
        vae.cuts = cuts
        code, out, err = nsarm("weights", "download", "micro-8b", "--jobs", 1)
        assert (code, out) == (4, "")
        assert "Traceback" not in err
        assert "partial" in nsarm("weights", "list")[1]
    vae.cuts = []
    code, out, err = nsarm("weights", "download", "micro-8b")
    assert code == 0, err
    assert published.ranges(f"/authors/vae/resolve/{COMMIT}/vae.pth")[-1] == "bytes=9000-"
    assert nsarm("weights", "verify", "micro-8b")[:2] == (0, "micro-8b: verified\n")

    code, folder, err = nsarm("weights", "convert", "micro-8b", "--precision", "fp32")
    assert code == 0, err
    assert nsarm("weights", "path", "micro-8b")[1] == folder
    code, _, err = nsarm(
        "upscale", photo, "-o", tmp_path / "large.png", "--model", "micro-8b",
        "--precision", "fp32", "--temperature", 0, "--trace", tmp_path / "trace.safetensors",
    )  # fmt: skip
    assert code == 0, err
    features = load_file(Path(folder.strip()) / "prompt.safetensors")["features"]
    upscaler = Upscaler(NsarmTextResolver(model, features), torch.device("cpu"))
    trace: dict[str, torch.Tensor] = {}
    wanted = upscaler.upscale(Image.open(photo), sampling=Sampling(temperature=0), trace=trace)
    written = load_file(tmp_path / "trace.safetensors")
    drawn = [name for name in trace if name.startswith("bits.")]
    assert len(drawn) == len(MICRO_8B.schedule)
    assert all(torch.equal(written[name], trace[name]) for name in drawn)
    # The loaded decoder runs leanly, so a value may be rounded to the next level.
    difference = np.array(Image.open(tmp_path / "large.png")).astype(int) - np.array(wanted)
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.001

    assert nsarm("weights", "remove", "micro-8b", "--originals", "--yes")[0] == 0
    assert nsarm("weights", "path", "micro-8b")[1] == folder


def _flip_a_byte(server, drive, catalog, patch):
    server.wrong[f"/authors/vae/resolve/{COMMIT}/vae.pth"].flip = 5000
    return lambda: None


def _lose_a_part(server, drive, catalog, patch):
    lost = drive.files.pop("NSARM_part_ab")
    return lambda: drive.files.update({"NSARM_part_ab": lost})


def _swap_parts(server, drive, catalog, patch):
    whole = dict(drive.files)
    first, second = "NSARM_part_aa", "NSARM_part_ab"
    drive.files |= {first: whole[second], second: whole[first]}

    def mend():
        drive.files |= whole
        for path in (catalog.parent / "home").rglob("NSARM_part_a[ab]"):
            path.unlink()  # they are kept for the user to look at, and never fetched twice unasked

    return mend


def _state_another_md5(server, drive, catalog, patch):
    right = catalog.read_text()
    catalog.write_text(re.sub('md5 = "[0-9a-f]{6}', 'md5 = "0123ab', right))
    return lambda: catalog.write_text(right)


def _fill_the_disk(server, drive, catalog, patch):
    usage = namedtuple("usage", "total used free")
    context = patch.context()
    context.__enter__().setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 1000))
    return lambda: context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_flip_a_byte, "vae.pth"),
        (_lose_a_part, "NSARM_part_ab"),
        (_swap_parts, "the parts are named in the wrong order"),
        (_state_another_md5, "to the md5"),
        (_fill_the_disk, "make room there"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_the_next_run_mends_it(
    published, tmp_path, monkeypatch, nsarm, spoil, sentence
):
    drive = sys.modules["gdown"]
    drive.quota = []
    mend = spoil(published, drive, tmp_path / "weights.toml", monkeypatch)
    code, out, err = nsarm("weights", "download", "micro-8b")
    assert (code, out) == (4, "")
    message = err.splitlines()[-1]
    assert message.startswith("error: ")
    assert sentence in message
    assert "Traceback" not in err
    assert nsarm("weights", "convert", "micro-8b")[0] == 4  # nothing is made of half a model
    assert not (tmp_path / "home" / "models").exists()
    mend()
    code, _, err = nsarm("weights", "download", "micro-8b")
    assert code == 0, err
    assert nsarm("weights", "verify", "micro-8b")[0] == 0
