"""One step on tensors without numbers: what it computes and what it keeps, before it is done.

The stage itself runs, forward and backward, on PyTorch's fake tensors, which have a shape and a
type but no memory. So the figures are those of the code that trains, whatever the model.
"""

import dataclasses
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nsarm_cli.training.config import BitsConfig, RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.economy import economise
from nsarm_cli.training.step import Stage
from nsarm_cli.training.templates import crop_size
from nsarm_cli.weights.folder import FAMILIES, AnyConfig, AnyModel

BuildStage = Callable[[RunConfig, AnyModel, torch.device], Stage]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rehearsal:
    """What one forward and backward pass takes.

    Attributes:
        flops: multiplications and additions of matrix products, convolutions and attention, those
            of what is computed twice included.
        kept: bytes that wait for the backward pass when the forward pass is over.
        peak: most bytes at any moment besides parameters and their gradients.
    """

    flops: int
    kept: int
    peak: int


def quiet(config: RunConfig) -> RunConfig:
    """The same run without draws that a number decides, which cost nothing, and without an encoder.

    Text is the learned unconditional caption, which is as long as captions get.
    """
    if not isinstance(config, BitsConfig):
        return config
    return dataclasses.replace(config, flip=0.0, caption_drop=0.0, text_encoder="", features="")


def meta_stage(config: RunConfig, model: AnyConfig, build: BuildStage) -> Stage:
    """The stage of a model without memory for its weights."""
    with torch.device("meta"):
        empty = FAMILIES[model.family].model(model)
    return build(quiet(config), empty, _CPU)


def rehearse(
    stage: Stage, config: RunConfig, model: AnyConfig, samples: int, *, recompute: str = "none"
) -> Rehearsal:
    """Go through one pass of `samples` crops.

    Args:
        stage: from `meta_stage`; its parameters become fake and stay so.
        config: of the run.
        model: configuration of the model.
        samples: crops of one pass.
        recompute: policy for activations; see `economy.economise`.
    """
    size = crop_size(model, config.templates[0], config.crop)
    low = (size[0] // model.scale, size[1] // model.scale)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(stage.module)
        economise(stage.trained, recompute, compiled=False)
        stage.module.eval()
        stage.trained.train()
        lr = torch.zeros(samples, 3, *low) if config.degrades else None
        batch = Batch(torch.zeros(samples, 3, *size), lr, config.templates[0])
        hooks = [
            parameter.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
            for parameter in stage.trained.parameters()
            if parameter.requires_grad
        ]
        enabled = config.precision == "bf16"
        try:
            with _Meter(stage.module) as meter:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                    loss, values = stage.loss(batch, 0)
                del values
                kept = meter.now
                loss.backward()  # type: ignore[no-untyped-call]
        finally:
            for hook in hooks:
                hook.remove()
    return Rehearsal(meter.flops, kept, meter.peak)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up operations, and the bytes of tensors that were made since it began and still are.

    Args:
        module: whose parameters and buffers are there already, and so are views of them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        there = itertools.chain(module.parameters(), module.buffers())
        self._there = {_key(tensor) for tensor in there}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if "generator" in named:  # fake tensors have no numbers to draw
            named["generator"] = None
        out = function(*args, **named)
        formula = flop_registry.get(function._overloadpacket)  # noqa: SLF001  (its only name)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=out)
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._note(value)
        return out

    def _note(self, value: Tensor) -> None:
        storage, key = value.untyped_storage(), _key(value)
        if key in self._alive or key in self._there:
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(tensor: Tensor) -> int:
    """What tells the memory of two tensors apart."""
    key: int = tensor.untyped_storage()._cdata  # noqa: SLF001  (it has no other name)
    return key


def _make_fake(module: nn.Module) -> None:
    """Put fake tensors of the same layout in the place of parameters and buffers."""

    def fake(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_CPU)

    parameters: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            if value not in parameters:
                made = nn.Parameter(fake(value), requires_grad=value.requires_grad)
                parameters[value] = made
            setattr(part, name, parameters[value])
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, fake(buffer))


def _forget(parameter: Tensor) -> None:
    """Gradients are counted by the number of parameters."""
    parameter.grad = None
