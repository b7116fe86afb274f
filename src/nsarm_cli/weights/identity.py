"""A short name for the weights of a folder that changes when they do."""

import hashlib
from pathlib import Path

_ALL = 256 * 2**20
"""Bytes up to which weights are read whole: about a second."""

_PIECE = 2**20
_PIECES = 64


def weights_identity(folder: Path) -> str:
    """Name the configuration and weights of a model folder.

    Args:
        folder: with config.json and safetensors files.

    Returns:
        "sha256:..." of the configuration and the files in order of their names. For weights of
        more than 256 MiB "sampled-sha256:...", of the names and sizes and of 64 pieces of 1 MiB
        spread over each file: it tells models apart, but does not prove that a file is whole.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(folder.glob("*.safetensors"))
    is_small = sum(file.stat().st_size for file in files) <= _ALL
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            if is_small:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                continue
            digest.update(f"{path.name}:{size}".encode())
            for index in range(_PIECES):
                file.seek(max(size - _PIECE, 0) * index // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return f"{'' if is_small else 'sampled-'}sha256:{digest.hexdigest()}"
