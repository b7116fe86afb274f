"""Full memory, told by the type of the error: which one is full decides what helps.

PyTorch has a type for a full CUDA GPU alone; of a full main memory and a full Apple GPU it tells
in the text of a `RuntimeError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MAIN = ("DefaultCPUAllocator:", "std::bad_alloc")
_APPLE = "MPS backend out of memory"


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise what a full memory raises in the block as one of two types.

    Raises:
        MemoryError: main memory is full.
        torch.OutOfMemoryError: that of a device is.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        text = str(error)
        if any(mark in text for mark in _MAIN):
            raise MemoryError(text) from error
        if _APPLE in text:
            raise torch.OutOfMemoryError(text) from error
        raise
