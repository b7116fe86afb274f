"""The loop around the steps: read, step, validate, save, report, until done or asked to stop."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.step import Stepper


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step.

    Attributes:
        step: steps done.
        steps: of the whole run.
        values: means over the batch: the loss, its parts, and the norm of the gradient.
        rate: learning rate of the step.
        samples: crops of the step, in all processes.
        seconds: that the step took, without validation and saving.
        validation: figures on the fixed set, where the step had a validation.
    """

    step: int
    steps: int
    values: dict[str, float]
    rate: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    validation: dict[str, float] | None = None


def run(
    stepper: Stepper,
    config: RunConfig,
    batches: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]] | None,
    folder: Path,
    *,
    ranks: Ranks,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train until `config.steps`, or until any process is asked to stop.

    Args:
        stepper: what to train.
        config: its settings.
        batches: this process's shares of the batches from a given step on.
        validation: its shares of the fixed validation batches, or None.
        folder: of the validation pictures.
        ranks: the processes that train together.
        report: called after every step.
        should_stop: asked in every step; the run then saves and returns.

    Returns:
        The number of steps done in all.

    Raises:
        TrainingDivergedError: the loss or a gradient is not finite.
    """
    try:
        last_save = began = time.monotonic()
        for batch in batches(stepper.step):
            is_due = began - last_save > config.save_minutes * 60
            done = stepper.advance(
                batch.to(ranks.device), should_stop=should_stop, should_save=is_due
            )
            seconds = time.monotonic() - began
            is_last, step = stepper.step >= config.steps, stepper.step
            figures = None
            if validation is not None and (is_last or step % config.validate_every == 0):
                name = f"validation-{step:06d}.png"
                figures = stepper.validate(validation(), folder / name if ranks.is_first else None)
            stepper.checkpoints.poll()
            if is_last or done.stop or done.save:
                stepper.save()
                last_save = began
            report(
                Progress(step, config.steps, done.values, done.rate, config.batch, seconds, figures)
            )
            if is_last or done.stop:
                break
            began = time.monotonic()
    finally:
        stepper.checkpoints.finish()
    return stepper.step
