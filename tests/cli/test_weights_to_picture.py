"""From the places where authors publish to a picture: everything that a user does, on loopback."""

import hashlib
import sys
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


def test_download_interrupted_three_times_verify_convert_upscale(
    published, model, tmp_path, photo, capsys
):
    def nsarm(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return main([str(argument) for argument in arguments]), *capsys.readouterr()

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
        "--precision", "fp32", "--temperature", 0,
    )  # fmt: skip
    assert code == 0, err
    features = load_file(Path(folder.strip()) / "prompt.safetensors")["features"]
    upscaler = Upscaler(NsarmTextResolver(model, features), torch.device("cpu"))
    wanted = upscaler.upscale(Image.open(photo), sampling=Sampling(temperature=0))
    assert np.array_equal(np.array(Image.open(tmp_path / "large.png")), np.array(wanted))

    assert nsarm("weights", "remove", "micro-8b", "--originals", "--yes")[0] == 0
    assert nsarm("weights", "path", "micro-8b")[1] == folder
