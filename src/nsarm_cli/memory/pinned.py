"""Places in pinned main memory, from which a GPU copies quickest and without the processor.

PyTorch rounds each piece of pinned memory up to a power of two: matrices that are pinned one by one
can take nearly twice their bytes. Here they share pieces that are powers of two already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

PIECE = 2**28
"""Bytes of a piece, unless one tensor is larger; so much more is held while it is filled."""

_ALIGNMENT = 512
"""Bytes; what PyTorch keeps to on a GPU."""


@dataclass
class Piece:
    """Some memory, and what has a place in it.

    Attributes:
        size: bytes, a power of two.
        places: number of a tensor, and its first byte.
        filled: bytes.
    """

    size: int
    places: list[tuple[int, int]] = field(default_factory=list)
    filled: int = 0

    def has_room(self, length: int) -> bool:
        """Whether so many bytes fit in."""
        return self.size - self.filled >= length

    def put(self, number: int, length: int) -> None:
        """Give a tensor the next place."""
        self.places.append((number, self.filled))
        self.filled += length


def arrange(lengths: Sequence[int]) -> list[Piece]:
    """Give tensors places: the longest first, each in the first piece that has room for it.

    Args:
        lengths: bytes of each, above 0.
    """
    rounded = [-(-length // _ALIGNMENT) * _ALIGNMENT for length in lengths]
    left = sum(rounded)
    pieces: list[Piece] = []
    for number in sorted(range(len(rounded)), key=lambda i: rounded[i], reverse=True):
        length = rounded[number]
        piece = next((piece for piece in pieces if piece.has_room(length)), None)
        if piece is None:
            needed = 1 << (length - 1).bit_length()
            wanted = 1 << (left.bit_length() - 1)  # not more than is left to be placed
            piece = Piece(max(needed, min(wanted, PIECE)))
            pieces.append(piece)
        piece.put(number, length)
        left -= length
    return pieces


def copied_to(memory: Tensor, tensor: Tensor) -> Tensor:
    """Copy a tensor to the beginning of some bytes.

    Args:
        memory: bytes, at least as many as the tensor has.
        tensor: of any type; strides that are dense stay as they are.
    """
    flat = memory[: tensor.nbytes].view(tensor.dtype)
    strides = torch.empty_like(tensor, device="meta").stride()
    return flat.as_strided(tensor.shape, strides).copy_(tensor)
