"""How fast a run goes, and how much of what the device could do that is."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_WEIGHT = 0.1
"""Of the newest step in the time of a step; the first steps count evenly."""

NAMED = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Rates of dense bf16 products summed in float32, in FLOP/s, as NVIDIA's data sheets name them."""

_SIDES = {"cpu": 512, "cuda": 8192}
_OTHER_SIDE = 2048
_REPEAT = 5


@dataclass(frozen=True)
class Speed:
    """How fast the run goes.

    Attributes:
        images: crops per second, in all processes.
        flops: of the model per second, without what is computed twice.
        share: `flops` as a share of what the devices could do (MFU); None where unknown.
        left: seconds until the last step.
    """

    images: float
    flops: float
    share: float | None
    left: float


class Pace:
    """Follows the time of steps.

    Args:
        samples: crops per step.
        flops: of a step; asked for once, when it is first needed.
        peak: FLOP/s of all devices; asked for once too. 0 is unknown.
    """

    def __init__(
        self,
        samples: int,
        flops: Callable[[], float] = lambda: 0.0,
        peak: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._samples = samples
        self._ask = (flops, peak)
        self._known: tuple[float, float] | None = None
        self._seconds = 0.0
        self._count = 0

    def note(self, seconds: float) -> None:
        """Take in the time of a step; the first, which warms up, only until there is another."""
        if self._count < 2:
            self._seconds = seconds
        else:
            weight = max(_WEIGHT, 1 / self._count)
            self._seconds += weight * (seconds - self._seconds)
        self._count += 1

    def speed(self, steps_left: int) -> Speed:
        """The speed now."""
        if self._known is None:
            self._known = (self._ask[0](), self._ask[1]())
        flops, peak = self._known
        seconds = max(self._seconds, 1e-9)
        rate = flops / seconds
        return Speed(
            self._samples / seconds, rate, rate / peak if peak else None, steps_left * seconds
        )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that a device can do: by name for known GPUs in bf16, or else measured.

    The measure is the fastest of a few products of square matrices, some milliseconds long.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, rate in NAMED.items():
            # Whole words: an RTX A1000 is no A100, nor is a part of one.
            if re.search(rf"\b{known}\b(?!.* (D|Ti|Laptop|MIG)\b)", name):
                return rate
    side = _SIDES.get(device.type, _OTHER_SIDE)
    # A processor without instructions for bf16 is fastest in float32.
    types = [dtype] if device.type != "cpu" else list({dtype, torch.float32})
    return max(_measured(device, each, side) for each in types)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _measured(device: torch.device, dtype: torch.dtype, side: int) -> float:
    a = torch.ones(side, side, device=device, dtype=dtype)
    fastest = float("inf")
    for _ in range(_REPEAT):
        _wait(device)
        began = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * side**3 / fastest
