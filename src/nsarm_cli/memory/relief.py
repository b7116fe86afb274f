"""What is done when a device runs out of memory although the plan said it would not."""

import logging
from dataclasses import replace

import torch

from nsarm_cli.memory.device import DeviceMemory
from nsarm_cli.memory.estimate import estimate
from nsarm_cli.memory.placement import Offloadable, Placement
from nsarm_cli.memory.planner import Wishes, ladder
from nsarm_cli.memory.quantize import quantize_blocks
from nsarm_cli.memory.settings import MemorySettings, Quantize
from nsarm_cli.models.core.memory import MemoryNeeds
from nsarm_cli.shortage import told_apart

_log = logging.getLogger(__name__)


class Relief:
    """Places a model, and places it again with less on the device when that is full.

    It is asked only when one window is too much, so it goes on with one at once.

    Args:
        resolver: its model, wherever it was loaded.
        device: where it computes.
        needs: of the model.
        memory: of the device.
        wishes: what the user fixed; it stays fixed.
        settings: to begin with.
    """

    def __init__(
        self,
        resolver: Offloadable,
        device: torch.device,
        *,
        needs: MemoryNeeds,
        memory: DeviceMemory,
        wishes: Wishes,
        settings: MemorySettings,
    ) -> None:
        self._blocks = list(resolver.transformer.blocks)
        self._device = device
        self._needs = needs
        self._memory = memory
        self._wishes = replace(wishes, batch=1)
        self._placement = Placement(resolver, device)
        self.settings = settings
        """What holds now."""

    def start(self) -> None:
        """Place the model under the first settings that the device really has room for.

        Raises:
            torch.OutOfMemoryError: it has room for none.
            DeviceError: the matrices cannot be quantised as asked.
        """
        quantize_blocks(self._blocks, self.settings.quantize, self._device)
        if not self._place(self.settings) and not self.ease(may_change=True):
            raise torch.OutOfMemoryError(f"{self._needs.name} does not fit")

    def ease(self, *, may_change: bool) -> bool:
        """Make the model take less; see `retry.Relief`."""
        for settings in self._smaller(may_change=may_change):
            _log.warning("%s is out of memory: going on with %s", self._device, settings)
            if settings.quantize is not self.settings.quantize:
                # Blocks go home first: on a full device there is no room to quantise.
                for block in self._blocks:
                    block.to("cpu")
                quantize_blocks(self._blocks, settings.quantize, self._device)
            self.settings = settings
            if self._place(settings):
                return True
        return False

    def _place(self, settings: MemorySettings) -> bool:
        try:
            with told_apart():
                self._placement.apply(settings)
        except (torch.OutOfMemoryError, MemoryError):
            return False
        finally:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
                # What was pinned and is not wanted any more; not in the oldest PyTorch we accept.
                getattr(torch.accelerator, "empty_host_cache", lambda: None)()
        return True

    def _smaller(self, *, may_change: bool) -> list[MemorySettings]:
        """Settings further down the ladder that take less."""
        guided = self._wishes.is_guided(self._needs)
        now = estimate(self._needs, replace(self.settings, batch=1), guided=guided).peak
        found = []
        for settings in ladder(self._needs, self._memory, self._wishes):
            takes_more = estimate(self._needs, settings, guided=guided).peak >= now
            changes = settings.quantize is not self.settings.quantize
            # What is quantised cannot be quantised again, nor restored.
            if changes and self.settings.quantize is not Quantize.NONE:
                continue
            if takes_more or (changes and not may_change):
                continue
            found.append(settings)
        return found
