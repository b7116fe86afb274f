"""One step of training, in one process or in many: gradient, agreement, clip, update.

A loss or gradient that is not finite raises before the update, after what was good is saved.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.average import MovingAverage
from nsarm_cli.training.checkpoint import Checkpoints
from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks, shard
from nsarm_cli.training.lora import adapter_of

_MAIN = ("loss", "gradient")


class TrainingDivergedError(ConfigError):
    """The loss or a gradient is not finite, which other settings avoid."""


class Stage(Protocol):
    """One kind of training: what is learned and from which loss."""

    @property
    def module(self) -> nn.Module:
        """Everything whose state a checkpoint keeps."""
        ...

    @property
    def trained(self) -> nn.Module:
        """The part that the optimiser changes."""
        ...

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to lower and named values to log, for one batch."""
        ...

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """Figures on a fixed set; writes a picture grid to the path."""
        ...


@runtime_checkable
class ChoosesDecay(Stage, Protocol):
    """A stage whose weights decay as its model's authors say."""

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter of `trained` decays."""
        ...


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix or kernel, and no table or learned constant."""
    is_table = any(word in name for word in ("embedding", "constant", "start", "modulation"))
    return parameter.ndim > 1 and not is_table


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    decays: Callable[[str, nn.Parameter], bool] = is_matrix,
) -> list[dict[str, object]]:
    """Decay some parameters; leave the others alone."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (decayed if decays(name, parameter) else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up, a while at the peak, then a linear or half-cosine fall to `final_lr`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    done = max(0.0, done - config.hold) / (1 - config.hold)
    shape = 1 - done if config.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)


@dataclass(frozen=True)
class Advance:
    """What came of a step.

    Attributes:
        values: means over the batch.
        rate: learning rate.
        stop: whether any process was asked to stop.
        save: whether it is time to save.
    """

    values: dict[str, float]
    rate: float
    stop: bool
    save: bool


class Stepper:
    """One stage in training: its model where it computes, its optimiser, and its checkpoints.

    Args:
        stage: what to train; its model is on the processor and moves to the device.
        config: steps, learning rate and the rest.
        folder: of the run.
        ranks: the processes that train together.
    """

    def __init__(self, stage: Stage, config: RunConfig, folder: Path, ranks: Ranks) -> None:
        self._stage = stage
        self._config = config
        self._ranks = ranks
        self._root = shard(stage.module, stage.trained, ranks, config.precision)
        decays = stage.decays if isinstance(stage, ChoosesDecay) else is_matrix
        groups = parameter_groups(stage.trained, config.weight_decay, decays)
        self._optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
        trained = {p for group in self._optimizer.param_groups for p in group["params"]}
        named = stage.module.named_parameters()
        self.trained = {name: p for name, p in named if p in trained}
        self.average = MovingAverage(self.trained, config.ema) if config.ema > 0 else None
        self.checkpoints = Checkpoints(folder, config.keep, ranks)
        self._autocast = torch.autocast(
            ranks.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"
        )
        self.step, absent = self.checkpoints.resume(self._state())
        if self.average is not None and any(name.startswith("average.") for name in absent):
            self.average.restart()  # it was switched on after the checkpoint
        stage.module.eval()  # parts that are not trained work as when sampling, without dropout

    def advance(
        self,
        batch: Batch,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        should_save: bool = False,
    ) -> Advance:
        """Do one step, unless the loss or a gradient is not finite.

        Args:
            batch: this process's share, on the device.
            should_stop: whether this process was asked to stop; asked before the update.
            should_save: whether it is time to save; the first process decides.

        Raises:
            TrainingDivergedError: nothing was updated; what was good is saved.
        """
        parts = batch.split(self._config.accumulate)
        # Dropout draws from these; a resumed step draws what the unbroken run would have.
        torch.manual_seed(_seed(self._config.seed, self.step, self._ranks.rank))
        self._stage.trained.train()
        sums: dict[str, Tensor] = {}
        for part in parts:
            with self._autocast, self._saving():
                loss, values = self._root(self._stage.loss, part, self.step)
            (loss / len(parts)).backward()
            for name, value in {**values, "loss": loss}.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / len(parts)
        flags = torch.tensor([float(should_stop()), float(should_save and self._ranks.is_first)])
        told = self._ranks.mean(torch.stack([*sums.values(), *flags.to(batch.hr.device)])).tolist()
        measured = dict(zip(sums, told, strict=False))
        parameters = list(self.trained.values())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        measured["gradient"] = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not all(math.isfinite(value) for value in measured.values()):
            self._refuse(measured)
        rate = learning_rate(self._config, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grads_with_norm_(parameters, self._config.clip, norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return Advance(measured, rate, told[-2] > 0, told[-1] > 0)

    def _saving(self) -> contextlib.AbstractContextManager[object]:
        """Where activations wait for the backward pass."""
        if not self._config.offload:
            return contextlib.nullcontext()
        on_gpu = self._ranks.device.type == "cuda"
        return torch.autograd.graph.save_on_cpu(pin_memory=on_gpu)

    def validate(self, batches: Iterable[Batch], pictures: Path | None) -> dict[str, float]:
        """Figures on a fixed set, with the averaged weights where there are any."""
        # Made before autocast begins, which would reach into the degradations. In the parts of a
        # step, so that a validation takes no more memory than sampling for one of them.
        parts = self._config.accumulate
        fixed = [p for batch in batches for p in batch.to(self._ranks.device).split(parts)]
        self._stage.trained.eval()
        averaged = contextlib.nullcontext() if self.average is None else self.average.in_place()
        with averaged, torch.no_grad(), self._autocast:
            figures = self._root(self._stage.validate, fixed, pictures)
            self._root.let_go()
        told = self._ranks.mean(torch.tensor(list(figures.values()), device=self._ranks.device))
        return dict(zip(figures, told.tolist(), strict=True))

    def save(self) -> None:
        """Begin to save what the run needs to go on."""
        self.checkpoints.save(self._state(), self.step)

    def weights(self, model: nn.Module, *, averaged: bool = False) -> dict[str, Tensor]:
        """The weights of a part of the stage's module, whole, in the first process.

        Args:
            model: the part, such as the model without what only serves its training.
            averaged: with the moving average in place of what is averaged.

        Returns:
            By their names in `model`, on the processor; nothing in the other processes.
        """
        state: dict[str, Tensor] = model.state_dict()
        if averaged and self.average is not None:
            names = {parameter: name for name, parameter in self.trained.items()}
            for name, parameter in model.named_parameters():
                if parameter in names:
                    state[name] = self.average.values[names[parameter]]
        return self._ranks.whole(state)

    def _state(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint holds, by name."""
        whole = self._stage.module.state_dict()
        # What LoRA leaves frozen is large, and is loaded from where it came at every start.
        kept = adapter_of(whole) or whole
        state = {f"model.{name}": tensor for name, tensor in kept.items()}
        for name, parameter in self.trained.items():
            moments = self._optimizer.state[parameter]
            if not moments:  # as AdamW itself begins at its first step
                moments["step"] = torch.zeros((), dtype=torch.float32)
                moments["exp_avg"] = torch.zeros_like(parameter)
                moments["exp_avg_sq"] = torch.zeros_like(parameter)
            state |= {f"optimizer.{name}.{field}": t for field, t in moments.items()}
        if self.average is not None:
            state |= {f"average.{name}": t for name, t in self.average.values.items()}
        return state

    def _refuse(self, measured: Mapping[str, float]) -> None:
        """Save what was good, then raise."""
        self.checkpoints.finish()  # it talks to the other processes, as what follows does
        faulty = [
            name
            for name, parameter in self.trained.items()
            if parameter.grad is not None and not _is_finite(parameter.grad)
        ]
        bad = list(dict.fromkeys(name for names in self._ranks.collect(faulty) for name in names))
        self._optimizer.zero_grad(set_to_none=True)
        # Without pruning: whoever lowers the learning rate needs the checkpoint before this one.
        self.checkpoints.save(self._state(), self.step, prune=False)
        self.checkpoints.finish()
        where = f" and the gradient of {bad[0]} is not finite" if bad else ""
        more = f" (nor that of {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
        terms = [n for n, v in measured.items() if n not in _MAIN and not math.isfinite(v)]
        part = f" through {terms[0]}" if terms else ""
        here = self.checkpoints.place(self.step)
        remedy = f"remove {here} to go on from before it with a lower lr"
        if self._config.precision == "bf16":
            remedy += ', or set precision = "fp32"'
        raise TrainingDivergedError(
            f"step {self.step}: the loss is {measured['loss']:g}{part}{where}{more}; nothing was "
            f"updated and step {self.step} is saved, where the same would happen again, so {remedy}"
        )


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1)


def _is_finite(tensor: Tensor) -> bool:
    """Of this process's part."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return bool(torch.isfinite(local).all())
