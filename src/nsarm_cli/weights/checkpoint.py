"""Open the authors' checkpoints: pickles of tensors, whole or in parts, and safetensors.

A pickle can run code when it is opened. It is therefore opened only after its digest was
checked (`trust.py`), only by PyTorch's reader of bare tensors, and never in any other way when
that reader refuses. The reader sees shapes alone: PyTorch's fake tensors remember where in the
file each tensor lies, and `StoredTensor` reads the numbers from there when they are needed.
That holds memory down as a memory map would, and also works over the parts of a split file.
"""

import pickle
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import OnBytes
from nsarm_cli.weights.originals import Original
from nsarm_cli.weights.shards import stored_tensors
from nsarm_cli.weights.stored import JoinedFile, StoredTensor
from nsarm_cli.weights.trust import Digest, Trust

SAFE_TORCH = (2, 10)
"""The reader of bare tensors could be tricked before (CVE-2025-32434, CVE-2026-24747)."""

_LARGEST_PICKLE = 256 * 2**20
"""Bytes of names and shapes; the 8B model's have some 300 kB."""

_ZIP = b"PK\x03\x04"
_BARE_PICKLE = b"\x80"


@dataclass(frozen=True)
class CheckedFiles:
    """The files of a checkpoint, open, with their digests checked; use it in a `with` block.

    They stay open until their tensors have been read, so that nothing can be put in their
    place after the check.

    Attributes:
        original: where they lie.
        files: one for a pickle and its parts, one for each shard.
        digests: of each file; empty where there was nothing to compare them with.
    """

    original: Original
    files: tuple[JoinedFile, ...]
    digests: tuple[tuple[Digest, ...], ...]
    _opened: ExitStack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()


def check_files(original: Original, trust: Trust, on_bytes: OnBytes) -> CheckedFiles:
    """Open the files of a checkpoint as plain bytes and check their digests.

    Args:
        original: from `find_originals`.
        trust: which digests are known.
        on_bytes: told how many bytes have just been read.

    Raises:
        WeightsError: a file is unreadable, has another digest, or is a pickle without one.
    """
    groups = [original.files] if original.pickled else [(path,) for path in original.files]
    files: list[JoinedFile] = []
    with ExitStack() as opened:
        for paths in groups:
            try:
                files.append(opened.enter_context(JoinedFile(paths)))
            except OSError as error:
                raise WeightsError(
                    f"{error.filename}: cannot be read ({error.strerror}); "
                    "check the name and the permissions"
                ) from error
        digests = tuple(trust.check(f, pickled=original.pickled, on_bytes=on_bytes) for f in files)
        return CheckedFiles(original, tuple(files), digests, opened.pop_all())


def read_contents(checked: CheckedFiles) -> dict[str, Any]:
    """Read what a checkpoint holds, but not the numbers of its tensors.

    Returns:
        Contents as the file nests them; tensors are `StoredTensor`s.

    Raises:
        WeightsError: the checkpoint is damaged, or more than bare tensors.
    """
    name = checked.original.name
    if checked.original.pickled:
        return _unpickle(checked.files[0], name)
    contents: dict[str, Any] = {}
    for file in checked.files:
        inside = stored_tensors(file)
        twice = next((tensor for tensor in inside if tensor in contents), None)
        if twice is not None:
            raise WeightsError(
                f"{file.paths[0]}: has {twice}, which another file of {name} has too; "
                "remove the file that does not belong there"
            )
        contents |= inside
    return contents


def _unpickle(file: JoinedFile, name: str) -> dict[str, Any]:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_TORCH:
        raise WeightsError(
            f"{name}: PyTorch {torch.__version__} does not open pickles safely; "
            "install PyTorch 2.10 or newer"
        )
    file.seek(0)
    start = file.read(len(_ZIP)) or b""
    if start.startswith(_BARE_PICKLE):
        raise WeightsError(
            f"{name}: is a bare pickle and refused, because it could run code when opened; "
            "get a file that torch.save wrote with PyTorch 1.6 or newer"
        )
    if start != _ZIP:
        raise WeightsError(
            f"{name}: is not a file that torch.save wrote; get it again, "
            "or the parts that come before this one"
        )
    try:
        records = _records(file)
        file.seek(0)
        with FakeTensorMode():
            contents = torch.load(cast("IO[bytes]", file), weights_only=True)
        return _locate_all(contents, file, records)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{name}: is refused, because it holds more than tensors and could run code when "
            f"opened ({_reason(error)}); get the file from its publisher"
        ) from error
    except Exception as error:  # the reader of a hostile file can fail in any way
        raise WeightsError(f"{name}: is damaged ({_reason(error)}); get the file again") from error


def _records(file: JoinedFile) -> dict[int, int]:
    """Sizes of the tensors' bytes by their place, as the file's directory has them.

    The reader takes places from elsewhere in the file; both must agree.
    """
    sizes = {}
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            inside = entry.filename.split("/", 1)[-1]
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{inside} is compressed")
            if inside == "data.pkl" and entry.file_size > _LARGEST_PICKLE:
                raise ValueError(f"{inside} has {entry.file_size} bytes")
            if inside == "byteorder" and archive.read(entry) != b"little":
                raise ValueError("it is big-endian")
            if inside.startswith("data/"):
                file.seek(entry.header_offset + 26)  # the lengths of the name and what follows it
                lengths = file.read(4) or b""
                after = int.from_bytes(lengths[:2], "little") + int.from_bytes(
                    lengths[2:], "little"
                )
                sizes[entry.header_offset + 30 + after] = entry.file_size
    return sizes


def _locate_all(contents: Any, file: JoinedFile, records: Mapping[int, int]) -> dict[str, Any]:
    if not isinstance(contents, Mapping):
        raise TypeError(f"it holds a {type(contents).__name__}, not names and tensors")
    return {name: _locate(value, file, records) for name, value in contents.items()}


def _locate(contents: Any, file: JoinedFile, records: Mapping[int, int]) -> Any:
    """Put stored tensors in the place of fake ones, in nested mappings."""
    if isinstance(contents, Mapping):
        return _locate_all(contents, file, records)
    if not isinstance(contents, Tensor):
        return contents
    tensor = contents.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        return None  # no weights are sparse or quantised; the names' table will miss it
    storage = tensor.untyped_storage()
    begin = int(storage._checkpoint_offset or 0)  # noqa: SLF001
    shape, stride = tuple(tensor.shape), tuple(tensor.stride())
    offset = begin + int(tensor.storage_offset()) * tensor.dtype.itemsize
    stored = StoredTensor(file, offset, tensor.dtype, shape, shape, stride)
    size = records.get(begin)
    if (
        size != storage.nbytes()
        or offset + stored.extent > begin + size
        or begin + size > file.size
    ):
        raise ValueError("a tensor lies outside the bytes that the file has for it")
    return stored


def _reason(error: BaseException) -> str:
    """What went wrong, without PyTorch's advice to open the file in an unsafe way."""
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].removesuffix(" by default").rstrip(".")[:200]
