"""Digests of files, computed while their bytes pass by."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at once."""

OnBytes = Callable[[int], None]
"""Called with the number of further bytes done."""


class Digests:
    """Several digests of one stream.

    Args:
        size: bytes the stream will have; needed for "git", which begins with it.
        algorithms: "sha256", "md5" or "git" (SHA-1 of a git blob, the Hub's name for small files).
    """

    def __init__(self, algorithms: Iterable[str] = ("sha256",), size: int | None = None) -> None:
        self._hashes = {}
        for name in algorithms:
            if name == "git":
                if size is None:
                    raise ValueError("the digest of a git blob needs its size beforehand")
                self._hashes[name] = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            else:
                self._hashes[name] = hashlib.new(name, usedforsecurity=name == "sha256")

    def update(self, data: bytes | memoryview) -> None:
        """Take further bytes."""
        for digest in self._hashes.values():
            digest.update(data)

    def values(self) -> dict[str, str]:
        """Digests of the bytes so far, by algorithm."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}


def read_through(path: Path, *takers: Digests, on_bytes: OnBytes | None = None) -> None:
    """Give a file's bytes to digests, in one pass.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            for taker in takers:
                taker.update(data)
            if on_bytes is not None:
                on_bytes(len(data))


def differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """The first algorithm whose digest is not the wanted one, or None when all agree."""
    for name, digest in wanted.items():
        if found.get(name) != digest:
            return name
    return None
