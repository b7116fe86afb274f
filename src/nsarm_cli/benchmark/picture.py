"""The measurement of a whole picture: windows, blending and colour, but no files."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nsarm_cli.benchmark.clock import Spread, time_laps
from nsarm_cli.benchmark.memory import PeakMemory


@dataclass(frozen=True)
class PictureReport:
    """One measurement of a whole picture.

    Attributes:
        warmup: runs before those that count.
        repeat: runs that count.
        seconds: from one picture in memory to the other.
        bicubic_seconds: of a bicubic enlargement to the same size.
        peak_memory: bytes, or None where the system does not tell.
        peak_memory_kind: what that counts.
    """

    warmup: int
    repeat: int
    seconds: Spread
    bicubic_seconds: Spread
    peak_memory: int | None
    peak_memory_kind: str


def measure_picture(
    enlarge: Callable[[], object],
    bicubic: Callable[[], object],
    device: torch.device,
    *,
    warmup: int,
    repeat: int,
    on_run: Callable[[int], None],
) -> PictureReport:
    """Time an enlargement beside the plainest one.

    Args:
        enlarge: enlarges a picture with the model.
        bicubic: enlarges the same picture without it.
        device: where the model lies.
        warmup: runs before those that count.
        repeat: runs that count.
        on_run: told the number of finished runs of the model, warm-up included.
    """

    def time(work: Callable[[], object], on_run: Callable[[int], None]) -> Spread:
        def run(mark: Callable[[], None]) -> None:
            work()
            mark()

        laps = time_laps(run, device, warmup=warmup, repeat=repeat, on_run=on_run)
        return Spread.of([seconds for (seconds,) in laps])

    memory = PeakMemory(device)
    seconds = time(enlarge, on_run)
    peak = memory.read()
    bicubic_seconds = time(bicubic, lambda _: None)
    return PictureReport(warmup, repeat, seconds, bicubic_seconds, peak, memory.kind)
