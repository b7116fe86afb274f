"""How much memory a device and the machine have, and how much of it is free."""

import re
from dataclasses import dataclass

import psutil
import torch

from nsarm_cli.errors import DeviceError

_UNITS = {"": 30, "g": 30, "gb": 30, "gib": 30, "m": 20, "mb": 20, "mib": 20}


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a device, in bytes.

    Attributes:
        total: all that there is.
        free: what a run can have; what other programs hold is not in it.
        host: main memory that is free, for what waits there.
        separate: whether the device has memory of its own, so that offloading helps.
        batched: whether windows are quicker together.
    """

    total: int
    free: int
    host: int
    separate: bool
    batched: bool = True


def memory_of(device: torch.device) -> DeviceMemory:
    """Ask a device how much memory it has."""
    main = psutil.virtual_memory()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        # What this process's allocator keeps for later is free for the run.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DeviceMemory(total, free, main.available, separate=True)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        free = min(total - torch.mps.current_allocated_memory(), main.available)
        return DeviceMemory(total, free, free, separate=False)
    return DeviceMemory(main.total, main.available, main.available, separate=False, batched=False)


def card_of(text: str) -> DeviceMemory:
    """The memory of a card that is not here, such as "16GB"; main memory counts as ample.

    A card's gigabytes are 2**30 bytes each, as its seller counts them.

    Raises:
        DeviceError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS or not 0 < float(match[1]) < 1e9:
        raise DeviceError(f"memory {text!r} is no size: give a number of gigabytes, such as 16GB")
    size = int(float(match[1]) * 2 ** _UNITS[match[2].lower()])
    return DeviceMemory(size, size, 1 << 62, separate=True)
