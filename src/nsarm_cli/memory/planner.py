"""Choose settings under which a run fits into a device, before anything is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from nsarm_cli.memory.device import DeviceMemory
from nsarm_cli.memory.estimate import GIB, Estimate, estimate
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.core.memory import MemoryNeeds

OVERHEAD = 0.75 * GIB
"""What CUDA, its libraries and their workspaces take on a card; assumed, not measured here."""

WASTE = 1.2
"""Activations come and go, and leave gaps; weights and cache do not. Assumed too."""

ROUNDING = 1.01
"""Allocators give whole blocks."""

BATCHES = (4, 2, 1)


@dataclass(frozen=True)
class Wishes:
    """What the user fixed; None leaves it to the planner.

    Attributes:
        dtype: of the run.
        batch: windows computed at once.
        offload: what waits in main memory.
        quantize: how block matrices are stored.
        guided: whether guidance is on; None is as the model was tuned.
        kinds: how block matrices may be stored where nothing is fixed, first what is best.
    """

    dtype: torch.dtype
    batch: int | None = None
    offload: Offload | None = None
    quantize: Quantize | None = None
    guided: bool | None = None
    kinds: tuple[Quantize, ...] = (Quantize.NONE, Quantize.INT8, Quantize.INT4)

    def is_guided(self, needs: MemoryNeeds) -> bool:
        """Whether guidance is on for a model."""
        return needs.guided if self.guided is None else self.guided


@dataclass(frozen=True)
class Plan:
    """Settings, and what they take.

    Attributes:
        settings: of the run.
        estimate: of its memory.
        fits: whether the device and the main memory hold it.
    """

    settings: MemorySettings
    estimate: Estimate
    fits: bool


def required(result: Estimate, memory: DeviceMemory) -> int:
    """Bytes that a device should have free for a run."""
    fullest = max(
        (moment.weights + moment.cache) * ROUNDING + moment.activations * WASTE
        for moment in result.moments
    )
    return int(fullest + (OVERHEAD if memory.separate else 0))


def choose(needs: MemoryNeeds, memory: DeviceMemory, wishes: Wishes) -> Plan:
    """Take the first settings that fit: large batches first, then offloading, then quantising.

    Returns:
        The first plan that fits; if none does, the one that takes least.
    """
    smallest: Plan | None = None
    for settings in ladder(needs, memory, wishes):
        plan = plan_for(needs, memory, settings, guided=wishes.is_guided(needs))
        if plan.fits:
            return plan
        if smallest is None or plan.estimate.peak < smallest.estimate.peak:
            smallest = plan
    assert smallest is not None  # noqa: S101  (a ladder has a step)
    return smallest


def plan_for(
    needs: MemoryNeeds, memory: DeviceMemory, settings: MemorySettings, *, guided: bool
) -> Plan:
    """Work out whether settings fit, keeping as many blocks on the device as there is room for."""
    result = _judge(needs, memory, settings, guided=guided)
    blocks = max(n.blocks for n in needs.networks)
    if settings.offload is not Offload.WEIGHTS or not result.fits:
        return result
    for resident in range(blocks - 1, 0, -1):
        more = _judge(needs, memory, replace(settings, resident=resident), guided=guided)
        if more.fits:
            return more
    return result


def ladder(needs: MemoryNeeds, memory: DeviceMemory, wishes: Wishes) -> Iterator[MemorySettings]:
    """Settings from the quickest to the smallest, within the wishes."""
    batches = BATCHES if memory.batched else (1,)
    if wishes.batch is not None:
        batches = (wishes.batch,)
    offloads = list(Offload) if memory.separate else [Offload.NONE]
    if wishes.offload is not None:
        offloads = [wishes.offload]
    quantizes = list(wishes.kinds)
    if wishes.quantize is not None or not any(n.linear for n in needs.networks):
        quantizes = [wishes.quantize or Quantize.NONE]
    for quantize in quantizes:
        for offload in offloads:
            # Once something waits elsewhere, a large batch is not worth the wait.
            for batch in batches if offload is offloads[0] else batches[-1:]:
                yield MemorySettings(wishes.dtype, batch, offload, quantize)


def _judge(
    needs: MemoryNeeds, memory: DeviceMemory, settings: MemorySettings, *, guided: bool
) -> Plan:
    result = estimate(needs, settings, guided=guided)
    fits = required(result, memory) <= memory.free and result.host <= memory.host
    return Plan(settings, result, fits)
