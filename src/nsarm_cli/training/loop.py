"""The loop around the steps: read, step, validate, save, report, until done or asked to stop."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.pace import Pace, Speed
from nsarm_cli.training.step import Stepper


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step.

    Attributes:
        step: steps done.
        steps: of the whole run.
        values: means over the batch: the loss, its parts, and the norm of the gradient.
        rate: learning rate of the step.
        pace: how fast the run goes.
        validation: figures on the fixed set, where the step had a validation.
        picture: what the validation shows, in the first process.
        is_due: whether the step is one of those to be told and recorded.
    """

    step: int
    steps: int
    values: dict[str, float]
    rate: float = 0.0
    pace: Pace = field(default_factory=lambda: Pace(0))
    validation: dict[str, float] | None = None
    picture: Path | None = None
    is_due: bool = True

    @property
    def speed(self) -> Speed:
        """How fast the run goes now."""
        return self.pace.speed(self.steps - self.step)


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
    pace: Pace | None = None,
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
        pace: follows the time of the steps.

    Returns:
        The number of steps done in all.

    Raises:
        TrainingDivergedError: the loss or a gradient is not finite.
    """
    pace = pace or Pace(config.batch)
    try:
        last_save = began = time.monotonic()
        for batch in batches(stepper.step):
            is_due = began - last_save > config.save_minutes * 60
            done = stepper.advance(
                batch.to(ranks.device), should_stop=should_stop, should_save=is_due
            )
            pace.note(time.monotonic() - began)
            is_last, step = stepper.step >= config.steps, stepper.step
            figures = picture = None
            if validation is not None and (is_last or step % config.validate_every == 0):
                picture = folder / f"validation-{step:06d}.png" if ranks.is_first else None
                figures = stepper.validate(validation(), picture)
            stepper.checkpoints.poll()
            if is_last or done.stop or done.save:
                stepper.save()
                last_save = began
            report(
                Progress(
                    *(step, config.steps, done.values, done.rate, pace, figures, picture),
                    is_due=step % config.log_every == 0 or figures is not None,
                )
            )
            if is_last or done.stop:
                break
            began = time.monotonic()
    finally:
        stepper.checkpoints.finish()
    return stepper.step
