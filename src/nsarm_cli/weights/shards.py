"""Safetensors in one file or several with an index, as Hugging Face lays them out.

Files are written piece by piece, so that a shard may be larger than memory; the library's own
writer wants all tensors of a file at once. What is written is opened by the library afterwards.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.stored import JoinedFile, StoredTensor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

STORED_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of numbers by their names in safetensors."""

_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items()}
_ALIGNMENT = 8

Pieces = Callable[[], Iterator[Tensor]]
"""Gives a tensor's elements in order, as vectors in their final type."""


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be written.

    Attributes:
        name: in the file.
        dtype: in the file.
        shape: in the file.
        pieces: its elements.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Pieces

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def shard_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: those of its index, else `model.safetensors`.

    Raises:
        WeightsError: the index is damaged, or a file of it is missing.
    """
    index = folder / INDEX_FILE
    if not index.exists():
        return (folder / WEIGHTS_FILE,)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        # A name with a folder in it could lead anywhere on the disk.
        strange = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise WeightsError(
            f"{index}: is not an index of weights ({error}); get the file again"
        ) from error
    if strange or not names:
        raise WeightsError(
            f"{index}: is not an index of weights "
            f"({f'{strange[0]!r} is no file name' if strange else 'it is empty'}); "
            "get the file again"
        )
    files = tuple(folder / name for name in names)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise WeightsError(
            f"{missing[0]}: is missing, though {INDEX_FILE} names it "
            f"({len(missing)} of {len(files)} files are); get it again"
        )
    return files


def stored_tensors(file: JoinedFile) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, without reading them.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = file.paths[0]
    try:
        with safe_open(path, framework="pt"):  # checks sizes, offsets and the header's length
            pass
        file.seek(0)
        start = 8 + int.from_bytes(file.read(8) or b"", "little")
        header = json.loads(file.read(start - 8) or b"")
        header.pop("__metadata__", None)
        return {name: _stored(file, start, entry) for name, entry in header.items()}
    except (OSError, SafetensorError, ValueError, LookupError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({error}); get the file again"
        ) from error


def write_shard(
    path: Path, tensors: Sequence[PlannedTensor], on_bytes: Callable[[int], None]
) -> None:
    """Write one file, flushed to the disk.

    Args:
        path: is replaced; give a temporary name.
        tensors: in the order of the file.
        on_bytes: told how many bytes have just been written.

    Raises:
        OSError: the disk refuses.
        WeightsError: a source cannot be read, or what was written cannot be read back.
    """
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors:
            for piece in tensor.pieces():
                data = piece.contiguous().view(torch.uint8).numpy().data
                file.write(data)
                on_bytes(len(data))
        file.flush()
        os.fsync(file.fileno())
    try:
        with safe_open(path, framework="pt") as written:
            names = set(written.keys())
    except SafetensorError as error:
        raise WeightsError(f"{path}: was not written as it should ({error})") from error
    if names != {tensor.name for tensor in tensors}:
        raise WeightsError(f"{path}: was not written as it should (tensors differ)")


def file_size(tensors: Sequence[PlannedTensor]) -> int:
    """Bytes of the file that `write_shard` writes."""
    return len(_header(tensors)) + sum(tensor.nbytes for tensor in tensors)


def index_text(files: Mapping[str, Sequence[PlannedTensor]]) -> str:
    """The index of several files: which holds which tensor.

    Args:
        files: tensors by file name.
    """
    weight_map = {t.name: name for name, tensors in files.items() for t in tensors}
    total = sum(t.nbytes for tensors in files.values() for t in tensors)
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(document, indent=2) + "\n"


def split(tensors: Sequence[PlannedTensor], limit: int) -> dict[str, list[PlannedTensor]]:
    """Distribute tensors over files of at most `limit` bytes; a larger tensor has its own.

    Returns:
        Tensors by file name; one file is called `model.safetensors` and needs no index.
    """
    groups: list[list[PlannedTensor]] = []
    room = 0
    for tensor in tensors:
        if not groups or tensor.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(tensor)
        room -= tensor.nbytes
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    stem = WEIGHTS_FILE.removesuffix(".safetensors")
    return {
        f"{stem}-{i:05}-of-{len(groups):05}.safetensors": group
        for i, group in enumerate(groups, start=1)
    }


def _header(tensors: Sequence[PlannedTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.nbytes
        header[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _stored(file: JoinedFile, start: int, entry: Mapping[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    dtype = STORED_DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"numbers of type {entry['dtype']} are not understood")
    tensor = StoredTensor.contiguous(file, start + begin, dtype, tuple(entry["shape"]))
    if tensor.extent != end - begin or start + end > file.size:
        raise ValueError("sizes contradict each other")
    return tensor
