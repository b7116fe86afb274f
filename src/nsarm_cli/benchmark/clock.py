"""Times of the stages of repeated runs, on a processor or a GPU."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch


@dataclass(frozen=True)
class Spread:
    """Seconds of repeated measurements.

    Attributes:
        median: of all.
        least: the fastest.
        most: the slowest.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Summarise at least one measurement."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


class Clock(Protocol):
    """Takes the times between marks."""

    def mark(self) -> None:
        """Note the present moment in the device's stream of work."""
        ...

    def laps(self) -> list[float]:
        """Seconds between neighbouring marks, after waiting for the last."""
        ...


class HostClock:
    """Reads the host's clock when the device has caught up.

    Args:
        synchronise: waits for the device; nothing to do on a processor.
    """

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self._synchronise = synchronise
        self._moments: list[float] = []

    def mark(self) -> None:
        """Wait for the device and note the time."""
        self._synchronise()
        self._moments.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Seconds between neighbouring marks."""
        return [b - a for a, b in zip(self._moments[:-1], self._moments[1:], strict=True)]


class CudaClock:
    """Puts events into the GPU's stream, so that the host never waits during a run.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._events: list[torch.cuda.Event] = []
        self._stream.synchronize()  # what came before is not this run's

    def mark(self) -> None:
        """Put an event behind the work queued so far."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self._events.append(event)

    def laps(self) -> list[float]:
        """Seconds between neighbouring events, after the last has happened."""
        self._events[-1].synchronize()
        pairs = zip(self._events[:-1], self._events[1:], strict=True)
        return [a.elapsed_time(b) / 1000 for a, b in pairs]


def start_clock(device: torch.device) -> Clock:
    """The clock that suits a device, not yet marked."""
    if device.type == "cuda":
        return CudaClock(device)
    return HostClock(torch.mps.synchronize if device.type == "mps" else _nothing)


def time_laps(
    run: Callable[[Callable[[], None]], object],
    device: torch.device,
    *,
    warmup: int,
    repeat: int,
    on_run: Callable[[int], None],
) -> list[list[float]]:
    """Repeat a run and time its parts.

    Args:
        run: is given what to call at the end of each part.
        device: where it computes.
        warmup: runs before the first that counts.
        repeat: runs that count.
        on_run: told the number of finished runs, warm-up included.

    Returns:
        For each run that counts, the seconds of each part.
    """
    laps = []
    for index in range(warmup + repeat):
        clock = start_clock(device)
        clock.mark()
        run(clock.mark)
        if index >= warmup:
            laps.append(clock.laps())
        on_run(index + 1)
    return laps


def _nothing() -> None:
    pass
