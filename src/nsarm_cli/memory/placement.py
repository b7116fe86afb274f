"""Put a model where its settings say: on the device, or waiting beside it.

What waits has its place in main memory for good. When it is to work, a copy comes to the device;
afterwards the copy is dropped, so nothing is ever carried back.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nsarm_cli.memory.pinned import arrange, copied_to
from nsarm_cli.memory.settings import MemorySettings, Offload
from nsarm_cli.models.core.transformer import NextScaleTransformer

HOME = torch.device("cpu")

Carry = Callable[[Tensor], Tensor]
"""Brings a tensor to the device; gives it back as it is when it is there already."""

Pin = Callable[[int], Tensor]
"""Takes so many bytes of pinned main memory."""


@runtime_checkable
class Offloadable(Protocol):
    """A resolver whose networks can wait elsewhere."""

    @property
    def model(self) -> nn.Module:
        """All networks."""
        ...

    @property
    def transformer(self) -> NextScaleTransformer:
        """The network that runs many times."""
        ...

    @property
    def visitors(self) -> Sequence[nn.Module]:
        """The networks that run once per batch, each through its `forward`."""
        ...


class Placement:
    """Where the networks of one model are.

    Args:
        resolver: its model, on the device or in main memory.
        device: where it computes.
        carry: brings a tensor there; by default a copy that does not wait.
        pin: takes memory for what waits; by default from PyTorch on a CUDA GPU, and nothing is
            pinned elsewhere.
    """

    def __init__(
        self,
        resolver: Offloadable,
        device: torch.device,
        carry: Carry | None = None,
        pin: Pin | None = None,
    ) -> None:
        self._resolver = resolver
        self._device = device
        self._carry = carry or (lambda tensor: tensor.to(device, non_blocking=True))
        self._pin = pin or (_pinned if device.type == "cuda" else None)
        self._hooks = ExitStack()

    def apply(self, settings: MemorySettings) -> None:
        """Place all networks; may be called again with other settings."""
        self._hooks.close()
        transformer = self._resolver.transformer
        transformer.let_go()
        blocks = list(transformer.blocks)
        visitors = [] if settings.offload is Offload.NONE else list(self._resolver.visitors)
        streamed: list[nn.Module] = []
        if settings.offload in {Offload.WEIGHTS, Offload.ALL}:
            streamed = blocks[settings.resident :]
        self._send_home([*visitors, *streamed])
        self._settle(self._resolver.model, {*visitors, *streamed})
        for module in visitors:
            self._let_visit(module)
        transformer.at_work = self._visit if streamed else nullcontext
        transformer.cache_home = HOME if settings.offload is Offload.ALL else None

    def _send_home(self, modules: Sequence[nn.Module]) -> None:
        for module in modules:
            module.to(HOME)
        if self._pin is None:
            return
        # Copies from pinned memory are quicker, and the processor need not wait for them.
        waiting = [
            (owner, name, tensor.nbytes)
            for module in modules
            for owner, name, tensor in _tensors(module)
            if _can_be_pinned(tensor)
        ]
        for piece in arrange([length for *_, length in waiting]):
            try:
                memory = self._pin(piece.size)
            except RuntimeError:  # too much for the system: the others wait as they are
                return
            for number, first in piece.places:
                owner, name, _ = waiting[number]
                tensor = getattr(owner, name)
                setattr(owner, name, _like(tensor, copied_to(memory[first:], tensor.detach())))

    def _settle(self, module: nn.Module, away: set[nn.Module]) -> None:
        """Bring a module to the device, without the parts that are to be away."""
        if module in away:
            return
        for name, tensor in _own_tensors(module):
            setattr(module, name, _like(tensor, tensor.detach().to(self._device)))
        for child in module.children():
            self._settle(child, away)

    def _let_visit(self, module: nn.Module) -> None:
        visit = ExitStack()

        def come(*_: object) -> None:
            visit.enter_context(self._visit(module))

        def go(*_: object) -> None:
            visit.close()

        self._hooks.callback(module.register_forward_pre_hook(come).remove)
        # Called after an error too, so that a run out of memory leaves nothing behind.
        self._hooks.callback(module.register_forward_hook(go, always_call=True).remove)

    @contextmanager
    def _visit(self, module: nn.Module) -> Iterator[None]:
        at_home = []
        try:
            for owner, name, tensor in list(_tensors(module)):
                local = tensor.detach()
                carried = self._carry(local)
                if carried is local:
                    continue
                at_home.append((owner, name, tensor))
                setattr(owner, name, _like(tensor, carried))
            yield
        finally:
            for owner, name, tensor in at_home:
                setattr(owner, name, tensor)


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _can_be_pinned(tensor: Tensor) -> bool:
    """Whether it is a plain tensor, not a quantised one, and not pinned yet."""
    return type(tensor.detach()) is Tensor and tensor.nbytes > 0 and not tensor.is_pinned()


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for owner in module.modules():
        for name, tensor in _own_tensors(owner):
            yield owner, name, tensor


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """The other tensor as what the first is in its module: a parameter or a buffer."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(other, requires_grad=False)
    return other
