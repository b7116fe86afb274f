"""The settings of a run that decide how much memory it takes."""

from dataclasses import dataclass
from enum import StrEnum

import torch


class Offload(StrEnum):
    """What waits in main memory instead of on the device, each with all before it.

    None of them changes a number of the result.
    """

    NONE = "none"
    IDLE = "idle"
    """The networks before and after the transformer, while it works and while they do not."""
    WEIGHTS = "weights"
    """Blocks of the transformer, which come to the device one by one."""
    ALL = "all"
    """The key-value cache too, of which one block's share comes."""


class Quantize(StrEnum):
    """How the matrices of the transformer's blocks are stored."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


@dataclass(frozen=True)
class MemorySettings:
    """Settings of a run.

    Attributes:
        dtype: of weights, cache and most activations.
        batch: windows computed at once.
        offload: what waits in main memory.
        quantize: how block matrices are stored.
        resident: blocks that stay on the device under `Offload.WEIGHTS`; the others come and go.
    """

    dtype: torch.dtype
    batch: int = 1
    offload: Offload = Offload.NONE
    quantize: Quantize = Quantize.NONE
    resident: int = 0

    def __str__(self) -> str:
        dtype = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]
        parts = [dtype, f"batch {self.batch}", f"offload {self.offload}"]
        if self.offload is Offload.WEIGHTS and self.resident:
            parts[-1] += f" ({self.resident} blocks stay)"
        if self.quantize is not Quantize.NONE:
            parts.append(f"quantize {self.quantize}")
        return ", ".join(parts)
