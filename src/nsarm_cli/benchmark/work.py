"""The arithmetic and the memory traffic of each stage, counted without doing either.

The model runs on the meta device, where tensors have shapes but no numbers, while every
operation passes through a counter. So the counts are those of the code that runs, for any
family, and the 8B model is counted on any machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nsarm_cli.benchmark.families import META
from nsarm_cli.benchmark.subject import Subject

_Region = tuple[int, int]
"""Identity of a storage, and where in it a tensor begins."""


@dataclass(frozen=True)
class Work:
    """What a stage must do at least.

    Attributes:
        flop: of matrix products, convolutions and attention; a multiply-add is 2.
        bytes: of weights, cached keys and values, and results of earlier stages that it
            reads, each once. What it makes itself could stay on the chip.
    """

    flop: int
    bytes: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flop + other.flop, self.bytes + other.bytes)


def count_work(subject: Subject, batch: int) -> tuple[Work, ...]:
    """Count the work of each stage.

    Args:
        subject: built on the meta device, in the precision that will run.
        batch: windows.
    """
    side = subject.resolver.window
    lr = torch.empty(batch, 3, side, side, device=META)
    generators = [torch.Generator().manual_seed(index) for index in range(batch)]
    stages: list[Work] = []
    with _Counter() as counter:
        subject.run(lr, generators, lambda: stages.append(counter.finish_stage()))
    return tuple(stages)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the FLOP of operations, and the bytes they read of what was there before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flop = 0
        self._read: dict[_Region, int] = {}
        # Keeping the storages keeps their identities from being given out again.
        self._known: dict[int, torch.UntypedStorage] = {}
        self._made_here: set[int] = set()

    def finish_stage(self) -> Work:
        """Return the work since the last call; results so far are now those of earlier stages."""
        work = Work(self._flop, sum(self._read.values()))
        self._flop = 0
        self._read.clear()
        self._made_here.clear()
        return work

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)  # a composite operation, as its parts
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self._flop += formula(*args, **kwargs, out_val=out)
        if not func.is_view:
            # The target of a copy is written, not read.
            self._note_reads(args[1:] if func is torch.ops.aten.copy_.default else args)
            self._note_results(out)
        return out

    def _note_reads(self, args: Any) -> None:
        for tensor in _tensors(args):
            storage = tensor.untyped_storage()
            self._known.setdefault(id(storage), storage)
            if id(storage) not in self._made_here:
                # An expanded tensor has more numbers than there are in memory.
                size = min(tensor.nbytes, storage.nbytes())
                region = (id(storage), int(tensor.storage_offset()))
                self._read[region] = max(size, self._read.get(region, 0))

    def _note_results(self, out: Any) -> None:
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if id(storage) not in self._known:  # else it was changed in place
                self._known[id(storage)] = storage
                self._made_here.add(id(storage))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
