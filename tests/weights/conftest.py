"""A micro model in a folder, and a Hub on loopback."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loopback import Server, serving
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig

MICRO: NsarmConfig = dataclasses.replace(
    NSARM_NANO,
    name="micro",
    window=16,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(8, 32, (1,), 1, 1, unshuffle=4, groups=8),
    transformation=ConvolutionalTransformationConfig(8, 32, 1, (2, 4), groups=8),
    transformer=TransformerConfig(32, 2, 2, 32, 64, scales=4, cross=False),
    overlap=4,
)


@pytest.fixture
def micro() -> NsarmModel:
    torch.manual_seed(0)
    return NsarmModel(MICRO)


@pytest.fixture
def folder(micro: NsarmModel, tmp_path: Path) -> Path:
    path = tmp_path / "micro"
    path.mkdir()
    save_file(
        {k: v.contiguous() for k, v in micro.state_dict().items()}, path / "model.safetensors"
    )
    text = json.dumps({"family": "nsarm", "config": MICRO.to_dict()})
    (path / "config.json").write_text(text)
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server that can be told to misbehave."""
    with serving() as state:
        yield state


@pytest.fixture
def hub_endpoint(server, monkeypatch, tmp_path) -> Server:
    """The same server in the place of the Hub, with an empty cache and no token."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return server


@pytest.fixture
def hub_cache(tmp_path) -> Callable[[str, str, str, bytes], Path]:
    """Put a file where huggingface_hub keeps what it has downloaded; returns the blob."""

    def put(repo: str, commit: str, name: str, data: bytes) -> Path:
        folder = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        link = folder / "snapshots" / commit / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(blob)
        return blob

    return put
