"""Several processes under `torchrun`: who does what, and how the parts come together again."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from nsarm_cli.errors import NsarmError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the report."""
        return self.rank == 0

    def is_mine(self, index: int) -> bool:
        """Whether a piece of work is this process's."""
        return index % self.world == self.rank

    def gather(self, part: _T) -> list[_T]:
        """Wait for all processes; every one gets all parts, by rank."""
        if self.world == 1:
            return [part]
        parts: list[_T | None] = [None] * self.world
        dist.all_gather_object(parts, part)
        return [p for p in parts if p is not None]

    def first_alone(self, work: Callable[[], object]) -> None:
        """Let the first process do what is done once, while the others wait.

        Raises:
            NsarmError: the work failed; every process gets it.
        """
        problem: NsarmError | None = None
        if self.is_first:
            try:
                work()
            except NsarmError as error:
                problem = error
        if (problem := next(iter(self.gather(problem)), None)) is not None:
            raise problem


@contextmanager
def ranks_of_environment() -> Iterator[Ranks]:
    """Join the processes that torchrun started; without it, there is one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """Give each process of a machine its own GPU where GPUs, or no device, were asked for."""
    local = os.environ.get("LOCAL_RANK")
    takes_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and takes_gpu else name
