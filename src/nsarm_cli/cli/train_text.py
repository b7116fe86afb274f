"""What the terminal says about a step of training."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsarm_cli.training.loop import Progress

_SCALE = re.compile(r"bits\.(\d+)")


def fresh(preset: str) -> str:
    """What to know of a start from a preset, whose name may be meant for the model of that name."""
    return (
        f"{preset} is a shape here: weights begin at random, but for parts that settings take from "
        "other folders; to go on from trained weights, name their folder, as in "
        '--model "$(nsarm weights path nsarm-nano)"'
    )


def label(progress: "Progress") -> str:
    """A few words beside the progress bar."""
    values = {name: v for name, v in progress.values.items() if name in {"loss", "gradient"}}
    return figures(values)


def line(progress: "Progress") -> str:
    """All of a step: losses, right bits per scale, gradient, rate, speed, time left."""
    speed = progress.speed
    parts = [
        figures(progress.values),
        f"lr {progress.rate:.3g}",
        f"{speed.images:.3g} images/s",
        f"{speed.flops / 1e12:.3g} TFLOP/s",
    ]
    if speed.share is not None:
        parts.append(f"MFU {speed.share:.0%}")
    parts.append(f"ETA {duration(speed.left)}")
    told = f"step {progress.step}: {' '.join(parts)}"
    if progress.validation is None:
        return told
    return f"{told} | validation: {figures(progress.validation)}"


def figures(values: Mapping[str, float]) -> str:
    """Names and values; the shares of right bits together, as "bits 3-6 .53 .55 .61 .70"."""
    bits = {int(found[1]): v for name, v in values.items() if (found := _SCALE.fullmatch(name))}
    words = [f"{n} {v:.4f}" for n, v in values.items() if not _SCALE.fullmatch(n)]
    if bits:
        shares = " ".join(f"{value:.2f}".removeprefix("0") for value in bits.values())
        words.append(f"bits {min(bits)}-{max(bits)} {shares}")
    return " ".join(words)


def duration(seconds: float) -> str:
    """As "0:04:59" or "3 days, 1:00:00"."""
    hours, rest = divmod(round(seconds), 3600)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{rest // 60:02}:{rest % 60:02}"
    return f"{days} days, {clock}" if days else clock
