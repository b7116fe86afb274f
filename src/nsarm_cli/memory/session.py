"""Load a model under a plan."""

from dataclasses import dataclass, field, replace

import torch

from nsarm_cli.errors import DeviceError
from nsarm_cli.memory.device import DeviceMemory, memory_of
from nsarm_cli.memory.placement import HOME, Offloadable
from nsarm_cli.memory.planner import Plan, Wishes, choose
from nsarm_cli.memory.quantize import obstacle, usable
from nsarm_cli.memory.relief import Relief
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.core.memory import MemoryNeeds
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.shortage import told_apart


@dataclass
class Session:
    """A model, where it runs, and how it fits there.

    Attributes:
        model: name or folder.
        device: where it runs.
        needs: of the model.
        memory: of the device.
        wishes: what the user fixed.
        plan: what was chosen.
    """

    model: str
    device: torch.device
    needs: MemoryNeeds
    memory: DeviceMemory
    wishes: Wishes
    plan: Plan
    _relief: Relief | None = field(default=None, init=False)

    @classmethod
    def prepare(
        cls,
        model: str,
        device: torch.device,
        wishes: Wishes,
        memory: DeviceMemory | None = None,
    ) -> "Session":
        """Plan, from the model's configuration alone.

        Args:
            model: name or folder.
            device: where it will run.
            wishes: what the user fixed.
            memory: of a device that is not here; None asks the device.

        Raises:
            WeightsError: no such model.
            DeviceError: a wish cannot be met on this device.
        """
        from nsarm_cli.weights.families import memory_needs  # noqa: PLC0415  (the parts below)

        check(wishes, device)
        wishes = replace(wishes, kinds=usable(device, wishes.dtype))
        memory = memory or memory_of(device)
        needs = memory_needs(model)
        return cls(model, device, needs, memory, wishes, choose(needs, memory, wishes))

    @property
    def settings(self) -> MemorySettings:
        """What holds now: what was planned, or less if the device has run out of memory since."""
        return self.plan.settings if self._relief is None else self._relief.settings

    def load(self) -> tuple[SuperResolver, Relief | None]:
        """Load and place the model.

        Returns:
            The model, and what eases its memory, if it can be eased.

        Raises:
            WeightsError: its files are missing or damaged.
            DeviceError: the device has no room for it under any settings.
        """
        try:
            with told_apart():
                return self._load()
        except (torch.OutOfMemoryError, MemoryError) as error:
            on_device = ", leave --offload to nsarm, or run with --device cpu"
            remedy = ", or take a smaller model" if self.device.type == "cpu" else on_device
            raise DeviceError(
                f"device {self.device} has no room for {self.model}; close what else uses it"
                f"{remedy}"
            ) from error

    def _load(self) -> tuple[SuperResolver, Relief | None]:
        from nsarm_cli.weights.families import load_resolver  # noqa: PLC0415  (the parts below)

        settings = self.plan.settings
        plain = settings.offload is Offload.NONE and settings.quantize is Quantize.NONE
        try:
            with told_apart():
                resolver = load_resolver(self.model, self.device if plain else HOME, settings.dtype)
        except torch.OutOfMemoryError:
            resolver, plain = None, False
        if resolver is None:
            resolver = load_resolver(self.model, HOME, settings.dtype)
        if not isinstance(resolver, Offloadable):
            if plain:
                return resolver, None
            raise DeviceError(
                f"model {self.model} can be neither offloaded nor quantised; "
                "leave these options out, or run with --device cpu"
            )
        self._relief = Relief(
            resolver,
            self.device,
            needs=self.needs,
            memory=self.memory,
            wishes=self.wishes,
            settings=settings,
        )
        if not plain:
            self._relief.start()
        return resolver, self._relief


def check(wishes: Wishes, device: torch.device) -> None:
    """Raise a DeviceError for a wish that would do nothing or fail on a device."""
    if wishes.offload not in {None, Offload.NONE} and device.type != "cuda":
        raise DeviceError(
            f"offload {wishes.offload} does nothing on {device}: it has no memory of its own; "
            "leave --offload out"
        )
    if wishes.quantize is not None:
        reason = obstacle(wishes.quantize, device, wishes.dtype)
        if reason is not None:
            raise DeviceError(f"quantising to {wishes.quantize} does not work here: {reason}")
