"""Work on a device that may be full: the same again with less.

First fewer windows at once; then what a `Relief` can do, such as offloading.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from nsarm_cli.errors import DeviceError
from nsarm_cli.shortage import told_apart

_log = logging.getLogger(__name__)


class Relief(Protocol):
    """Makes room on a device that has run out of memory; `memory.relief.Relief` is one."""

    def ease(self, *, may_change: bool) -> bool:
        """Make the model take less.

        Args:
            may_change: whether its numbers may become others, as by quantising it.

        Returns:
            Whether it takes less now; False when nothing is left to try.
        """
        ...


class Retry:
    """Runs work, and runs it again with less when the device is out of memory.

    Args:
        device: where the work is done.
        batch: windows computed at once, at least 1.
        relief: tried when one window alone does not fit.

    Attributes:
        batch: what it has come to.
    """

    def __init__(self, device: torch.device, batch: int, relief: Relief | None) -> None:
        self._device = device
        self._relief = relief
        self._full_main = False
        self.batch = batch

    def windows(
        self, work: Callable[[int, int], Tensor], count: int, *, may_change: bool
    ) -> Tensor:
        """Make something of windows, as many at once as there is room for.

        Args:
            work: called as `work(start, stop)` for some of the windows; gives a row for each.
            count: of all windows.
            may_change: see `Relief.ease`; it holds until the first of them is made.

        Returns:
            The rows of all windows.

        Raises:
            DeviceError: there is no room for a single one, whatever is done.
            MemoryError: the same where it is main memory that is full.
        """
        rows: list[Tensor] = []
        done = 0
        while done < count:
            stop = min(done + self.batch, count)
            made = self._attempt(partial(work, done, stop))
            if made is not None:
                rows.append(made)
                done = stop
            elif not self._halve():
                self._ease("with one window at once", may_change=may_change and done == 0)
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def once(self, work: Callable[[], Tensor], doing: str) -> Tensor:
        """Do something that cannot be done in parts.

        Args:
            work: gives the result.
            doing: what it is, for the message, such as "while decoding".

        Raises:
            DeviceError: there is no room for it, whatever is done.
            MemoryError: the same where it is main memory that is full.
        """
        while (made := self._attempt(work)) is None:
            self._ease(doing, may_change=False)
        return made

    def _halve(self) -> bool:
        """Take half the windows at once; false when it is one already."""
        if self.batch == 1:
            return False
        self.batch //= 2
        self._empty()
        _log.warning("%s is out of memory: going on with batch %d", self._device, self.batch)
        return True

    def _ease(self, doing: str, *, may_change: bool) -> None:
        self._empty()
        with told_apart():
            if self._relief is not None and self._relief.ease(may_change=may_change):
                return
        if self._full_main:
            raise MemoryError(f"main memory is full {doing}")
        raise DeviceError(
            f"device {self._device} is out of memory {doing}, and nothing is left that would "
            "take less; close what else uses it, or run with --device cpu"
        )

    def _empty(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _attempt(self, work: Callable[[], Tensor]) -> Tensor | None:
        """Do it, or return None when the device is out of memory.

        Only outside the handler are the tensors of the failed attempt gone.
        """
        try:
            with told_apart(), torch.inference_mode():
                return work()
        except torch.OutOfMemoryError:
            self._full_main = False
        except MemoryError:
            if self._device.type != "cpu":  # less on the device would not help
                raise
            self._full_main = True
        return None
