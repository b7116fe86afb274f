"""Records a run while it goes on, beside what is told on the terminal."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from nsarm_cli.training.loop import Progress
from nsarm_cli.training.trackers import Careful, Tracker


class Watch:
    """Hands each step on, and to a tracker those that are due.

    Args:
        tracker: takes the figures; closed when the block ends.
        report: called with every step.
    """

    def __init__(self, tracker: Tracker, report: Callable[[Progress], None]) -> None:
        self._tracker = Careful(tracker)
        self._report = report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tracker.close()

    def __call__(self, progress: Progress) -> None:
        """Report a step and record it if it is due."""
        self._report(progress)
        if not progress.is_due:
            return
        speed = progress.speed
        values = {f"training/{name}": value for name, value in progress.values.items()}
        values["training/lr"] = progress.rate
        values["speed/images per second"] = speed.images
        values["speed/TFLOP per second"] = speed.flops / 1e12
        if speed.share is not None:
            values["speed/MFU"] = speed.share
        for name, value in (progress.validation or {}).items():
            values[f"validation/{name}"] = value
        self._tracker.figures(progress.step, values)
        if progress.picture is not None:
            self._tracker.picture(progress.step, progress.picture)
