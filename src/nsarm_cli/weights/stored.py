"""Tensors where they lie in files: their shape is known, their numbers are read piece by piece.

A checkpoint of 35 GB is renamed, cast and written again without ever being in memory, and
files that were split into parts are read in place, without being joined on disk first.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError

PIECE_BYTES = 32 * 2**20
"""Most bytes of a tensor that are read at once."""


class JoinedFile(io.RawIOBase):
    """Files one after the other, read as one.

    Args:
        paths: in order; at least one.

    Raises:
        OSError: a file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._place = 0
        self._files: list[io.FileIO] = []
        self._ends: list[int] = []
        end = 0
        with ExitStack() as opened:
            for path in paths:
                file = opened.enter_context(io.FileIO(path))
                end += file.seek(0, io.SEEK_END)
                self._files.append(file)
                self._ends.append(end)
            self._opened = opened.pop_all()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return self._ends[-1]

    def close(self) -> None:
        """Close all files."""
        self._opened.close()
        super().close()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte, counted from the first file's first."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another place."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise ValueError(f"place {origin + offset} is before the beginning")
        self._place = origin + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, across the ends of files; less only at the end of the last one."""
        view = memoryview(buffer).cast("B")
        filled, begin = 0, 0
        for file, end in zip(self._files, self._ends, strict=True):
            while begin <= self._place < end and filled < len(view):
                file.seek(self._place - begin)
                got = file.readinto(view[filled : filled + end - self._place])
                if not got:  # the file has shrunk since it was opened
                    return filled
                filled += got
                self._place += got
            begin = end
        return filled


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: stays open as long as the tensor is read.
        offset: place of the first element, in bytes.
        dtype: of the elements, little-endian.
        shape: as it is read.
        stored_shape: as it was written; as many elements as `shape`.
        stride: of `stored_shape`, in elements; none negative.
    """

    file: JoinedFile
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def contiguous(
        cls, file: JoinedFile, offset: int, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> "StoredTensor":
        """A tensor whose elements lie one after the other."""
        return cls(file, offset, dtype, shape, shape, _contiguous_stride(shape))

    def reshape(self, shape: tuple[int, ...]) -> "StoredTensor":
        """The same elements in another shape.

        Raises:
            ValueError: the shape has another number of elements.
        """
        if math.prod(shape) != self.numel:
            raise ValueError(f"{self.shape} cannot be reshaped to {shape}")
        return replace(self, shape=shape)

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """Bytes from the first element to the end of the last one."""
        if not self.numel:
            return 0
        steps = ((n - 1) * s for n, s in zip(self.stored_shape, self.stride, strict=True))
        return (sum(steps) + 1) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The whole tensor.

        Raises:
            WeightsError: the file ends too early or cannot be read.
        """
        return torch.cat(list(self.pieces())).reshape(self.shape)

    def pieces(self, limit: int = PIECE_BYTES) -> Iterator[Tensor]:
        """The elements in order, as vectors of at most `limit` bytes; at least one vector.

        A tensor whose elements do not lie in order is read whole.

        Raises:
            WeightsError: the file ends too early or cannot be read.
        """
        if not self._in_order:
            flat = self._vector(0, self.extent // self.dtype.itemsize)
            yield flat.as_strided(self.stored_shape, self.stride).reshape(-1)
            return
        count = max(1, limit // self.dtype.itemsize)
        for begin in range(0, max(self.numel, 1), count):
            yield self._vector(begin, min(count, self.numel - begin))

    @property
    def _in_order(self) -> bool:
        wanted = _contiguous_stride(self.stored_shape)
        steps = zip(self.stored_shape, self.stride, wanted, strict=True)
        return all(stride == step or length == 1 for length, stride, step in steps)

    def _vector(self, begin: int, count: int) -> Tensor:
        raw = torch.empty(count * self.dtype.itemsize, dtype=torch.uint8)
        try:
            self.file.seek(self.offset + begin * self.dtype.itemsize)
            got = self.file.readinto(raw.numpy()) if count else 0
        except OSError as error:
            raise WeightsError(
                f"{self.file.paths[0]}: cannot be read ({error.strerror}); check the disk, "
                "or get the file again"
            ) from error
        if got != len(raw):
            raise WeightsError(
                f"{self.file.paths[0]}: ends before all tensors are read; get the file again"
            )
        return raw.view(self.dtype)


def _contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    stride = [1]
    for length in reversed(shape[1:]):
        stride.append(stride[-1] * max(length, 1))
    return tuple(reversed(stride)) if shape else ()
