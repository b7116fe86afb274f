"""Options that commands share, with their checks and help texts."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from nsarm_cli.errors import ConfigError, DeviceError


@contextmanager
def value_of(option: str) -> Iterator[None]:
    """Turn the refusal of an option's value into wrong usage, which has exit code 2."""
    try:
        yield
    except (ConfigError, DeviceError) as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from error


def card_size(value: str | None) -> str | None:
    """Refuse a size of a card that is none; for options named `--memory`."""
    from nsarm_cli.memory.device import card_of

    if value is not None:
        with value_of("--memory"):
            card_of(value)
    return value


class Precision(StrEnum):
    """Choices of `--precision`: "auto" and the names in `runtime.PRECISIONS`."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Color(StrEnum):
    """Choices of `--color`: the names in `imaging.color.METHODS`."""

    NONE = "none"
    ADAIN = "adain"
    WAVELET = "wavelet"
    BOTH = "both"
    DETAIL = "detail"


def _temperature(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{value} is not a number of at least 0.")
    return value


def _top_p(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is not above 0 and at most 1.")
    return value


Device = Annotated[
    str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:N or mps.", metavar="NAME")
]

PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", help="Number format of the model; auto takes bf16 where it is native."
    ),
]

Threads = Annotated[
    int | None,
    typer.Option(
        help="Processor threads to use.", min=1, metavar="N", show_default="PyTorch's choice"
    ),
]

Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model first: a minute or more at the start, quicker afterwards on a GPU.",
    ),
]

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.", min=0, metavar="N")]

Temperature = Annotated[
    float | None,
    typer.Option(
        help="Randomness of the details; 0 always takes the likelier bit.",
        callback=_temperature,
        show_default="the model's",
        metavar="NUMBER",
    ),
]

TopP = Annotated[
    float | None,
    typer.Option(
        help="Share of probability kept before drawing; the unlikely rest is cut off.",
        callback=_top_p,
        show_default="the model's",
        metavar="NUMBER",
    ),
]

ColorOption = Annotated[
    Color | None,
    typer.Option(
        "--color", help="How colours are matched to the input.", show_default="the model's"
    ),
]
