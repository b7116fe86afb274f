"""The most memory that a stretch of work holds at once."""

import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
"""What `clear_refs` takes for "start the peak anew" (Linux, proc(5))."""


class PeakMemory:
    """The peak since this object was made.

    On a GPU it is what PyTorch allocated there, weights included. Elsewhere it is the resident
    memory of the whole process, Python and libraries included; where the system cannot start
    the peak anew, since the process began.

    Args:
        device: where the work computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        elif _CLEAR.exists():
            with suppress(OSError):  # a hardened kernel: the peak stays that of the process
                _CLEAR.write_text(_FORGET_PEAK)

    @property
    def kind(self) -> str:
        """What is counted."""
        if self._device.type == "cuda":
            return "allocated on the GPU"
        return "resident in the process"

    def read(self) -> int | None:
        """The peak in bytes, or None on a system that does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if _STATUS.exists():
            fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
            return int(fields["VmHWM"].split()[0]) * 1024  # the file says kB and means KiB
        if sys.platform == "win32":
            return None
        import resource  # noqa: PLC0415  (not on Windows)

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes
