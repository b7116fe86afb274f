"""How an input becomes what is judged: the two protocols that published figures come from.

The same method scores differently under each, so every report names the one that was used.
"""

from enum import StrEnum

from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError

SCALE = 4
"""Enlargement that the field's sets are made for."""

Size = tuple[int, int]
"""(width, height) in pixels, as Pillow has it."""


class Protocol(StrEnum):
    """What is done with pictures before and after a method.

    NATIVE: the method enlarges the input four times, and that is judged.
    PAPER: as in NSARM's paper. An input of a quarter of the reference's side is enlarged twice
        by Pillow's bicubic, the method enlarges that four times, and the result is halved by
        Pillow's bicubic before it is judged.
    """

    NATIVE = "native"
    PAPER = "paper"


def input_of(lr: Image.Image, gt_size: Size | None, protocol: Protocol, name: str) -> Image.Image:
    """Make what a method is given.

    Args:
        lr: the input of the set.
        gt_size: of the reference, or None.
        protocol: see `Protocol`.
        name: how an error calls the input.

    Raises:
        ImageError: input and reference do not belong together.
    """
    if gt_size is None:
        return lr
    factor = _factor(lr.size, gt_size, name)
    if factor == 2 and protocol is Protocol.NATIVE:
        raise ConfigError(
            f"{name}: is {lr.width}x{lr.height} for a reference of {gt_size[0]}x{gt_size[1]}, as "
            "NSARM's authors prepare it; pass --protocol paper"
        )
    if protocol is Protocol.PAPER and factor == SCALE:
        return lr.resize((2 * lr.width, 2 * lr.height), Image.Resampling.BICUBIC)
    return lr


def judged_size(lr_size: Size, gt_size: Size | None, protocol: Protocol) -> Size:
    """Give the size at which outputs are judged: the reference's, else by the protocol."""
    if gt_size is not None:
        return gt_size
    factor = SCALE if protocol is Protocol.NATIVE else SCALE // 2
    return lr_size[0] * factor, lr_size[1] * factor


def to_judge(sr: Image.Image, size: Size, protocol: Protocol, name: str) -> Image.Image:
    """Bring an output to the size at which it is judged.

    Args:
        sr: the output.
        size: see `judged_size`.
        protocol: PAPER halves outputs of twice the size; others must have it already.
        name: how an error calls the output.

    Raises:
        ImageError: another size.
    """
    if sr.size == size:
        return sr
    if sr.size == (2 * size[0], 2 * size[1]):
        if protocol is Protocol.PAPER:
            return sr.resize(size, Image.Resampling.BICUBIC)
        raise ImageError(
            f"{name}: is {sr.width}x{sr.height}, twice the {size[0]}x{size[1]} that is judged; "
            "pass --protocol paper, which halves it, or give outputs of the size judged"
        )
    raise ImageError(
        f"{name}: is {sr.width}x{sr.height}, but {size[0]}x{size[1]} is judged"
        f"{' (or twice that)' if protocol is Protocol.PAPER else ''}; make it again from its input"
    )


def bicubic(lr: Image.Image) -> Image.Image:
    """Enlarge four times by Pillow's bicubic: the method that every other must beat."""
    return lr.resize((SCALE * lr.width, SCALE * lr.height), Image.Resampling.BICUBIC)


def describe(protocol: Protocol, lr_size: Size, gt_size: Size | None) -> str:
    """Say in words what the protocol does with pictures of these sizes."""
    judged = judged_size(lr_size, gt_size, protocol)
    enlarged = protocol is Protocol.PAPER and gt_size == (SCALE * lr_size[0], SCALE * lr_size[1])
    given = (2 * lr_size[0], 2 * lr_size[1]) if enlarged else lr_size
    made = (SCALE * given[0], SCALE * given[1])
    steps = [_text(lr_size)]
    steps += [f"{_text(given)} (Pillow bicubic)"] if enlarged else []
    steps += [f"{_text(made)} (method)"]
    steps += [f"{_text(judged)} (Pillow bicubic)"] if made != judged else []
    return f"{protocol.value}: " + " to ".join(steps)


def _factor(lr: Size, gt: Size, name: str) -> int:
    for factor in (SCALE, SCALE // 2):
        if gt == (factor * lr[0], factor * lr[1]):
            return factor
    raise ImageError(
        f"{name}: is {_text(lr)} and its reference {_text(gt)}, which is not four times as wide "
        "and high; pair each input with its own reference"
    )


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
