"""What the numbers were measured on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch


@dataclass(frozen=True)
class Machine:
    """A device and the software that drives it.

    Attributes:
        device: PyTorch's name of it.
        name: of the GPU or processor.
        threads: that PyTorch computes with on the processor.
        processors: that the system shows.
        system: its name and release.
        python: version.
        pytorch: version, with the variant of the build.
    """

    device: str
    name: str
    threads: int
    processors: int
    system: str
    python: str
    pytorch: str

    @classmethod
    def describe(cls, device: torch.device) -> Self:
        """Describe this machine as it is set up now."""
        name = _processor()
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
        return cls(
            device=str(device),
            name=name,
            threads=torch.get_num_threads(),
            processors=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            pytorch=torch.__version__,
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
