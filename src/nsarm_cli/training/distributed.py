"""The processes of one run: who they are, what they agree on, and how they split a model.

`torchrun` starts the processes and says who is who; without it there is one process, which has
everything and asks nobody. The loop is the same in both cases.

With several processes every trained parameter, its gradient and its optimiser state are split
among all of them (FSDP2, `torch.distributed.fsdp.fully_shard`); the parts that are not trained
are small and stay whole. Each process has its own share of every batch, and the mean over equal
shares is the mean over the batch.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from nsarm_cli.errors import ConfigError, DeviceError
from nsarm_cli.models.core.attention import CrossAttention
from nsarm_cli.models.core.block import Block
from nsarm_cli.runtime import choose_device

T = TypeVar("T")

CPU = torch.device("cpu")

UNITS = (Block, CrossAttention, nn.TransformerEncoderLayer)
"""Modules whose parameters are gathered together, just before they are needed."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        world: number of processes.
        files: group for what happens beside the training, such as saving; None when alone.
    """

    device: torch.device = CPU
    rank: int = 0
    world: int = 1
    files: "dist.ProcessGroup | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a small float tensor."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def share(self, value: T) -> T:
        """What the first process has, in all of them."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, group=self.files)
        return box[0]  # type: ignore[no-any-return]

    def collect(self, value: T) -> list[T]:
        """What every process has, in all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.files)
        return found

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put split tensors together, on the processor of the first process; others get none."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.is_first:
                found[name] = full.detach().cpu()
        return found


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the run that torchrun started, or be alone.

    Args:
        device: name of a device, as on the command line; with torchrun each process of a
            machine takes the GPU of its local number.

    A process that joined before the block stays joined after it.

    Yields:
        This process, and the reason for its device in a few words.

    Raises:
        DeviceError: no such device, too few of them for the processes of this machine, or
            another process has gone.
    """
    world = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    chosen, reason = choose_device(device)
    if world == 1:
        yield Ranks(chosen), reason
        return
    if chosen.type == "cuda":
        chosen, _ = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise DeviceError(f"torchrun with device {chosen.type} is not possible; use cuda or cpu")
    is_new = not dist.is_initialized()
    if is_new:
        meet("gloo" if chosen.type == "cpu" else "cpu:gloo,cuda:nccl")
    rank = dist.get_rank()
    try:
        files = dist.new_group(backend="gloo")
        yield Ranks(chosen, rank, world, files), f"{reason}, one of {world} processes"
    except RuntimeError as error:
        if not is_loss_of_contact(error):
            raise
        raise DeviceError(
            f"process {rank} of {world} lost contact with another, whose own message says why; "
            "run the same command to go on from the last checkpoint"
        ) from error
    finally:
        if is_new:
            dist.destroy_process_group()


def is_loss_of_contact(error: BaseException) -> bool:
    """Whether an error means that another process has gone, or cannot be reached."""
    by_type = isinstance(error, dist.DistError | dist.DistBackendError | dist.DistNetworkError)
    return by_type or (isinstance(error, RuntimeError) and "gloo" in str(error))


def meet(backend: str) -> None:
    """Connect with the other processes that torchrun started.

    After a restart torchrun keeps the meeting place, with the addresses of the dead in it; so
    every start has its own part of it.
    """
    store, rank, world = next(rendezvous("env://"))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = dist.PrefixStore(f"start-{start}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=world)


class Root(nn.Module):
    """Runs functions of a stage as the forward of one module, which sharding hooks into.

    Args:
        module: everything the functions use.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function(*arguments)` with the parameters at hand."""
        return function(*arguments)

    def let_go(self) -> None:
        """Split again what a forward without a backward has gathered."""
        for part in self.modules():
            reshard = getattr(part, "reshard", None)
            if reshard is not None:
                reshard()


def shard(module: nn.Module, trained: nn.Module, ranks: Ranks, precision: str) -> Root:
    """Bring a model to the device and split what is trained among the processes.

    Args:
        module: the whole model, on the processor.
        trained: the part of it that is trained.
        ranks: the processes.
        precision: "bf16" gathers parameters in bf16 and sums gradients in float32; the parts
            that each process keeps are float32 always.

    Returns:
        What runs functions that use the model.
    """
    root = Root(module)
    if ranks.world == 1:
        module.to(ranks.device)
        return root
    # Convolutions may have been laid out channels last, which cannot be split by rows.
    trained.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    kept = set(trained.parameters())
    whole = {p for p in module.parameters() if p not in kept}
    for parameter in whole:
        parameter.data = parameter.data.to(ranks.device)
    how: dict[str, Any] = {
        "mesh": init_device_mesh(ranks.device.type, (ranks.world,)),
        # The model casts for itself: the residual stream stays float32 between the blocks.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if precision == "bf16" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        ),
        "ignored_params": whole,
    }
    for part in reversed(list(trained.modules())):
        if isinstance(part, UNITS):
            fully_shard(part, **how)
            if isinstance(part, CrossAttention):
                register_fsdp_forward_method(part, "keys_values")
    fully_shard(root, **how)
    return root


def part_of_batch(batch: int, accumulate: int, ranks: Ranks) -> tuple[int, int]:
    """First sample and number of samples of this process in each batch.

    Raises:
        ConfigError: the batch cannot be split evenly.
    """
    parts = ranks.world * accumulate
    if batch % parts:
        raise ConfigError(
            f"batch is {batch}, which {ranks.world} processes of {accumulate} parts each "
            f"cannot share evenly; give a multiple of {parts}"
        )
    size = batch // ranks.world
    return ranks.rank * size, size
