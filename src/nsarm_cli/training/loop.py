"""The loop around a stage: read, step, log, validate, save. It knows nothing of the stage.

Order within a step: batch, loss, gradient, clip, update. A loss or gradient that is not
finite stops the run before the update, so the last checkpoint stays good.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.checkpoint import load_checkpoint, save_checkpoint
from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch


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

    def validate(self, batches: Iterable[Batch], pictures: Path) -> dict[str, float]:
        """Figures on a fixed set; writes a picture grid to the path."""
        ...


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step."""

    step: int
    steps: int
    values: dict[str, float]
    validation: dict[str, float] | None = None


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels; leave vectors, embeddings and learned constants alone."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_table = any(word in name for word in ("embedding", "constant", "start", "modulation"))
        (plain if parameter.ndim < 2 or is_table else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up, then a linear or half-cosine fall to `final_lr` of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    shape = 1 - done if config.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)


def run(
    stage: Stage,
    config: RunConfig,
    batches: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]] | None,
    folder: Path,
    *,
    device: torch.device,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train until `config.steps`, or until `should_stop`, resuming from `folder`.

    Args:
        stage: what to train.
        config: steps, learning rate and the rest.
        batches: the batches from a given step on; a resumed run asks for later ones.
        validation: the fixed validation batches, or None.
        folder: of the checkpoint and of the validation pictures.
        device: where the stage lives.
        report: called after every step.
        should_stop: asked after every step; the run then saves and returns.

    Returns:
        The number of steps done in all.

    Raises:
        TrainingDivergedError: the loss or a gradient is not finite.
    """
    parameters = [p for p in stage.trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameter_groups(stage.trained, config.weight_decay), lr=config.lr, betas=config.betas
    )
    path = folder / "checkpoint.safetensors"
    step = load_checkpoint(path, stage.module, optimizer) if path.exists() else 0
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")
    last_save = time.monotonic()
    stage.module.eval()  # parts that are not trained work as when sampling, without dropout
    for batch in batches(step):
        stage.trained.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        with autocast:
            loss, values = stage.loss(batch.to(device), step)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise _diverged(stage.module, loss, step)
        torch.nn.utils.clip_grads_with_norm_(parameters, config.clip, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        measured = {name: float(value.detach()) for name, value in values.items()}
        measured |= {"loss": float(loss.detach()), "gradient": float(norm)}
        is_last, stop = step >= config.steps, should_stop()
        figures = None
        if validation is not None and (is_last or step % config.validate_every == 0):
            stage.trained.eval()
            # Made before autocast begins, which would reach into the degradations.
            fixed = [batch.to(device) for batch in validation()]
            with torch.no_grad(), autocast:
                figures = stage.validate(fixed, folder / f"validation-{step:06d}.png")
        if is_last or stop or time.monotonic() - last_save > config.save_minutes * 60:
            save_checkpoint(path, stage.module, optimizer, step)
            last_save = time.monotonic()
        report(Progress(step, config.steps, measured, figures))
        if is_last or stop:
            break
    return step


def _diverged(module: nn.Module, loss: Tensor, step: int) -> TrainingDivergedError:
    bad = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    where = f" and the gradient of {bad[0]} is not finite" if bad else ""
    more = f" (nor that of {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
    return TrainingDivergedError(
        f"step {step}: the loss is {float(loss.detach()):g}{where}{more}; nothing was updated, "
        "so lower lr or clip and run again to go on from the last checkpoint"
    )
