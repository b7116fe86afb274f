"""Options about memory, and the plan that they lead to, in words and as a table."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console
from nsarm_cli.cli.options import card_size

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from nsarm_cli.memory.device import DeviceMemory
    from nsarm_cli.memory.planner import Plan
    from nsarm_cli.memory.session import Session
    from nsarm_cli.pipeline import Upscaler


class OffloadChoice(StrEnum):
    """Choices of `--offload`: "auto" and the values of `memory.settings.Offload`."""

    AUTO = "auto"
    NONE = "none"
    IDLE = "idle"
    WEIGHTS = "weights"
    ALL = "all"


class QuantizeChoice(StrEnum):
    """Choices of `--quantize`: "auto" and the values of `memory.settings.Quantize`."""

    AUTO = "auto"
    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


OffloadOption = Annotated[
    OffloadChoice,
    typer.Option(
        "--offload", help="What waits in main memory while a GPU works; the result is the same."
    ),
]
QuantizeOption = Annotated[
    QuantizeChoice,
    typer.Option(
        "--quantize",
        help="Store the transformer's matrices in fewer bits; auto does so as the last resort.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="With --dry-run: plan for a card of this size instead of this machine.",
        metavar="SIZE",
        callback=card_size,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class MemoryOptions:
    """The options as given.

    Attributes:
        offload: what waits in main memory.
        quantize: how block matrices are stored.
        batch: windows at once, or None.
        guided: whether guidance is on; None leaves it to the model.
        card: memory of a card to plan for that is not here, or None.
    """

    offload: OffloadChoice
    quantize: QuantizeChoice
    batch: int | None
    guided: bool | None
    card: str | None = None

    def choose_device(self, name: str) -> "tuple[torch.device, str]":
        """As `runtime.choose_device`; a card that is not here is a CUDA GPU."""
        import torch

        from nsarm_cli.runtime import choose_device

        if self.card is None:
            return choose_device(name)
        return torch.device("cuda"), f"a card of {self.card}"

    def choose_dtype(self, name: str, device: "torch.device") -> "tuple[torch.dtype, str]":
        """As `runtime.choose_dtype`; a card that is not here has native bf16."""
        from nsarm_cli.runtime import choose_dtype

        if self.card is not None and name == "auto":
            return choose_dtype("bf16", device)[0], "as most cards have it"
        return choose_dtype(name, device)

    def session(self, model: str, device: "torch.device", dtype: "torch.dtype") -> "Session":
        """Plan a run.

        Raises:
            NsarmError: no such model, or an option would do nothing on this device.
        """
        from nsarm_cli.memory.device import card_of
        from nsarm_cli.memory.planner import Wishes
        from nsarm_cli.memory.session import Session
        from nsarm_cli.memory.settings import Offload, Quantize

        wishes = Wishes(
            dtype,
            self.batch,
            None if self.offload is OffloadChoice.AUTO else Offload(self.offload.value),
            None if self.quantize is QuantizeChoice.AUTO else Quantize(self.quantize.value),
            self.guided,
        )
        memory = None if self.card is None else card_of(self.card)
        return Session.prepare(model, device, wishes, memory)

    def fits(self, folder: Path, device: "torch.device", dtype: "torch.dtype") -> tuple[bool, str]:
        """Whether a device holds the model of a folder; a `weights.choice.Fits`.

        A processor is never found able: its memory may hold the model, but a picture would take
        hours, which nobody expects of a default.
        """
        from nsarm_cli.memory.planner import required

        session = self.session(str(folder), device, dtype)
        name, plan, memory = session.needs.name, session.plan, session.memory
        if device.type == "cpu":
            return False, f"{name} would take hours per picture on a processor"
        need, free = gib(required(plan.estimate, memory)), gib(memory.free)
        if not plan.fits:
            return False, f"{name} needs {need} GiB, and {free} GiB are free on {device}"
        return True, f"its {need} GiB fit into the {free} GiB free on {device}"

    def announce(self, session: "Session") -> None:
        """Say in one line what a run needs and what there is.

        Raises:
            DeviceError: the device is much too small.
        """
        from nsarm_cli.errors import DeviceError

        console.say(f"memory: {describe(session.plan, session.memory)}")
        least = session.plan.estimate.peak
        if not session.plan.fits and least > session.memory.total:
            raise DeviceError(
                f"model {session.model} needs at least {gib(least)} GiB and {session.device} has "
                f"{gib(session.memory.total)} GiB in all; take a smaller model or another device"
            )

    def print_plan(self, session: "Session", *, with_text: bool) -> None:
        """Print the plan of a run as its result."""
        from nsarm_cli.memory.estimate import weight_bytes
        from nsarm_cli.weights.families import text_encoder_network

        needs, plan, memory = session.needs, session.plan, session.memory
        place = str(session.device) if self.card is None else f"a card of {self.card}"
        console.result(f"{needs.name} on {place}: {describe(plan, memory)}")
        console.result_table(plan_table(plan))
        console.result(
            f"one window: {needs.window} x {needs.window} pixels to "
            f"{needs.window * needs.scale} x {needs.window * needs.scale}; "
            f"weights waiting in main memory: {gib(plan.estimate.host)} GiB"
        )
        if with_text:
            size = weight_bytes(text_encoder_network(session.model), plan.settings)
            where = "on the device" if size <= memory.free else "on the processor"
            console.result(f"before it: the text encoder, {gib(size)} GiB {where}, then freed")


def describe(plan: "Plan", memory: "DeviceMemory") -> str:
    """What a plan needs against what there is, in one line."""
    from nsarm_cli.memory.planner import required

    need = f"needs {gib(required(plan.estimate, memory))} GiB"
    verdict = "" if plan.fits else "; it will probably not fit"
    return f"{need}, {gib(memory.free)} GiB are free; {plan.settings}{verdict}"


def plan_table(plan: "Plan") -> "Table":
    """The moments of a run and what is on the device in each, in GiB."""
    from rich.table import Table

    table = Table()
    table.add_column("moment")
    for column in ("weights", "cache", "activations", "sum, GiB"):
        table.add_column(column, justify="right")
    for moment in plan.estimate.moments:
        sizes = (moment.weights, moment.cache, moment.activations, moment.total)
        fullest = moment is plan.estimate.fullest
        table.add_row(moment.name + (" (fullest)" if fullest else ""), *map(gib, sizes))
    return table


def gib(size: int) -> str:
    """A number of bytes in GiB."""
    return f"{size / 2**30:.2f}"


def load(session: "Session", *, compiled: bool) -> "Upscaler":
    """Load the model of a session, and compile it if asked to."""
    from nsarm_cli.acceleration import accelerate
    from nsarm_cli.pipeline import Upscaler

    resolver, relief = session.load()
    if compiled:
        accelerate(resolver, session.device)
    return Upscaler(resolver, session.device, batch=session.settings.batch, relief=relief)
