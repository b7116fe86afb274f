"""How fast this machine multiplies matrices and copies memory: what no stage can beat.

S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52 (4), 2009.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nsarm_cli.benchmark.clock import time_laps
from nsarm_cli.benchmark.work import Work

_SIDES = {"cpu": (1024, 2048), "mps": (2048, 4096), "cuda": (4096, 8192)}
"""Sides of the matrices; the best of them counts. All fit a small device."""

_COPY_BYTES = {"cpu": 2**28, "mps": 2**28, "cuda": 2**30}
"""Bytes of the copied block: several times the largest cache."""

_WARMUP, _REPEAT = 2, 6


@dataclass(frozen=True)
class Roofline:
    """Rates of a device, measured.

    Attributes:
        flop_per_second: of a square matrix product in the precision of the run.
        bytes_per_second: of a copy, reads and writes together.
    """

    flop_per_second: float
    bytes_per_second: float

    def floor(self, work: Work) -> float:
        """Least seconds that some work can take."""
        return max(work.flop / self.flop_per_second, work.bytes / self.bytes_per_second)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure a device; takes seconds, and some hundred megabytes for a moment."""
    return Roofline(
        max(_matmul_rate(device, dtype, side) for side in _SIDES[device.type]),
        _copy_rate(device, _COPY_BYTES[device.type]),
    )


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    generator = torch.Generator(device).manual_seed(0)
    a, b = (
        torch.empty(side, side, device=device, dtype=dtype).normal_(generator=generator)
        for _ in range(2)
    )
    out = torch.empty_like(a)
    return 2 * side**3 / _least_seconds(lambda: torch.mm(a, b, out=out), device)


def _copy_rate(device: torch.device, size: int) -> float:
    source = torch.ones(size, device=device, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * size / _least_seconds(lambda: target.copy_(source), device)


def _least_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of several times: a limit is what the device reached once."""

    def run(mark: Callable[[], None]) -> None:
        work()
        mark()

    laps = time_laps(run, device, warmup=_WARMUP, repeat=_REPEAT, on_run=lambda _: None)
    return min(seconds for (seconds,) in laps)
