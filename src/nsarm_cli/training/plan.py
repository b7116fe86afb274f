"""What a run will take, by arithmetic: memory of each process, operations, what it receives.

The arithmetic is explained in docs/scaling.md. Parameters are counted on the meta device;
activations and operations come from one step on fake tensors (`rehearsal`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.training.config import RunConfig, Stage1Config, TokenizerConfig
from nsarm_cli.training.distributed import UNITS, Ranks, part_of_batch
from nsarm_cli.training.rehearsal import BuildStage, Rehearsal, meta_stage, rehearse
from nsarm_cli.training.step import Stage
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.weights.folder import FAMILIES, AnyConfig

POLICIES = ("none", "selective", "full")
"""Values of `recompute`."""

_FLOAT32, _BF16 = 4, 2


@dataclass(frozen=True)
class State:
    """Bytes of what a process keeps from update to update.

    Attributes:
        weights: its part of what is trained, and of what LoRA freezes among it.
        frozen: the parts of the model that are not trained, whole.
        gradients: float32, its part.
        optimiser: two float32 moments of AdamW, its part.
        average: moving average, its part.
        update: what the optimiser needs for a moment, when no activations are there.
    """

    weights: int
    frozen: int
    gradients: int
    optimiser: int
    average: int
    update: int

    @property
    def split(self) -> int:
        """All that is split among the processes."""
        return self.weights + self.gradients + self.optimiser + self.average


@dataclass(frozen=True)
class Passing:
    """What a policy for activations means.

    Attributes:
        activations: bytes at the worst moment of a pass.
        again: share of operations that are computed twice.
        total: bytes of the process at its worst moment, with everything.
    """

    activations: int
    again: float
    total: int


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        learned: parameters that the optimiser changes.
        other: all other parameters.
        world: processes.
        passes: that each process makes per update (`accumulate`).
        samples: crops of a pass.
        flops: of an update in all processes, nothing computed twice.
        state: what a process keeps.
        gathered: bytes of the parameters and gradients that are whole while they compute.
        policies: by value of `recompute`.
        validation: bytes of the process while it makes pictures of validation.
        received: bytes that a process receives per update.
        checkpoint: bytes of a checkpoint on the disk.
    """

    learned: int
    other: int
    world: int
    passes: int
    samples: int
    flops: float
    state: State
    gathered: int
    policies: dict[str, Passing]
    validation: int
    received: int
    checkpoint: int


def make_plan(
    config: RunConfig,
    model: AnyConfig,
    build: BuildStage,
    world: int,
    *,
    policies: Sequence[str] = POLICIES,
    watch: Callable[[int, str], object] = lambda done, policy: None,
) -> Plan:
    """Plan a run.

    Args:
        config: of the run.
        model: configuration of its model.
        build: makes its stage.
        world: number of processes.
        policies: values of `recompute` to look at.
        watch: called before each of them with its number and name.

    Raises:
        ConfigError: the batch cannot be split among the processes.
    """
    _, share = part_of_batch(config.batch, config.accumulate, Ranks(world=world))
    samples = share // config.accumulate
    narrow = config.precision == "bf16"
    stage = meta_stage(config, model, build)
    state = _state(stage, world, averaged=config.ema > 0)
    gathered, received = _exchanged(stage, narrow=narrow) if world > 1 else (0, 0)
    found = {}
    for number, policy in enumerate(policies):
        watch(number, policy)
        gathers = world > 1 and narrow
        found[policy] = _pass(config, model, build, samples, policy, gathers=gathers)
    once = min(one.flops for one in found.values())
    kept = state.frozen + state.split
    passings = {}
    for policy, one in found.items():
        # With `offload`, what waits for the backward pass is in the memory of the machine.
        activations = one.peak - (one.kept if config.offload else 0)
        total = kept + max(gathered + activations, state.update)
        passings[policy] = Passing(activations, one.flops / once - 1, total)
    learned = sum(p.numel() for p in _learned(stage))
    whole = list(stage.module.parameters())
    return Plan(
        learned,
        sum(p.numel() for p in whole) - learned,
        world,
        config.accumulate,
        samples,
        once * config.batch / samples,
        state,
        gathered,
        passings,
        kept + gathered + _sampling(stage, config, model, samples),
        config.accumulate * received * (world - 1) // world,
        _bytes(_saved(stage, config)) + learned * _FLOAT32 * (3 if config.ema > 0 else 2),
    )


def _pass(
    config: RunConfig,
    model: AnyConfig,
    build: BuildStage,
    samples: int,
    policy: str,
    *,
    gathers: bool,
) -> Rehearsal:
    stage = meta_stage(config, model, build)
    if gathers:  # parameters come as bf16, so autocast makes no copies
        for parameter in stage.trained.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    return rehearse(stage, config, model, samples, recompute=policy)


def _sampling(stage: Stage, config: RunConfig, model: AnyConfig, samples: int) -> int:
    """Bytes of the cache and of what else is there while a stage makes pictures.

    The tokenizer only reconstructs, which takes less than a step.
    """
    if isinstance(config, TokenizerConfig):
        return 0
    needs = FAMILIES[model.family].needs(model)
    draws = not isinstance(config, Stage1Config)
    guided = needs.guided and isinstance(config, VarsrStageConfig)
    size = _BF16 if config.precision == "bf16" else _FLOAT32
    most = 0
    for moment in needs.moments:
        copies = 1 if moment.single else samples * (2 if guided and moment.branched else 1)
        if moment.cache and not draws:
            continue
        cache = _cache(stage, model, copies, waits=config.offload) if moment.cache else 0
        most = max(most, cache + copies * (moment.plain * size + moment.wide * _FLOAT32))
    return most


def _cache(stage: Stage, model: AnyConfig, copies: int, *, waits: bool) -> int:
    """Bytes on the device of the keys and values of so many windows."""
    transformers = (m for m in stage.module.modules() if isinstance(m, NextScaleTransformer))
    transformer = next(transformers)
    cache = transformer.allocate_cache(copies, model.schedule)
    whole = _bytes((cache.keys, cache.values))
    return whole // len(transformer.blocks) if waits else whole


def _state(stage: Stage, world: int, *, averaged: bool) -> State:
    split = list(stage.trained.parameters())
    there = {id(parameter) for parameter in split}
    whole = [p for p in stage.module.parameters() if id(p) not in there]
    part = sum(p.numel() for p in _learned(stage)) * _FLOAT32 // world
    return State(
        _bytes(split) // world,
        _bytes(whole) + _bytes(stage.module.buffers()),
        part,
        2 * part,
        part if averaged else 0,
        part,
    )


def _exchanged(stage: Stage, *, narrow: bool) -> tuple[int, int]:
    """Bytes that are whole at one moment, and bytes of all that is exchanged in a pass.

    The unit that computes and the next one are gathered, and what belongs to no unit stays so.
    Gradients of a unit are there in the type they are computed in and in that of their sum.
    Parameters are gathered for the forward pass and again for the backward pass.
    """
    kind = _BF16 if narrow else _FLOAT32
    sizes = []
    inside: set[int] = set()
    for part in stage.trained.modules():
        if isinstance(part, UNITS):
            own = [p for p in part.parameters() if id(p) not in inside]
            inside |= {id(p) for p in own}
            sizes.append(sum(p.numel() for p in own))
    rest = sum(p.numel() for p in stage.trained.parameters() if id(p) not in inside)
    largest = max(sizes, default=0)
    learned = sum(p.numel() for p in _learned(stage))
    gradients = (kind + _FLOAT32) * (largest if learned > rest else 0)
    everything = rest + sum(sizes)
    return (2 * largest + rest) * kind + gradients, 2 * kind * everything + _FLOAT32 * learned


def _saved(stage: Stage, config: RunConfig) -> Iterable[Tensor]:
    """What a checkpoint keeps of the model: with LoRA only what it learns."""
    is_adapter = getattr(config, "lora", 0) > 0
    return _learned(stage) if is_adapter else stage.module.parameters()


def _learned(stage: Stage) -> list[Tensor]:
    return [p for p in stage.trained.parameters() if p.requires_grad]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
