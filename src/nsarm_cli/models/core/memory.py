"""How much a model keeps in memory, as counts of numbers; what a byte planner needs of a family.

A number is "plain" when it has the type of the run, and "wide" when it is float32 whatever the
type. Everything is a count of numbers, not bytes. Activations are sums over the tensors that are
alive where the code holds most of them; tests compare them with a count of the run itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import nn

from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import TransformerConfig


def is_matrix(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a linear layer of tokens, not of a condition: one that may be quantised."""
    return type(module) is nn.Linear


@dataclass(frozen=True)
class Network:
    """The weights of one network.

    Attributes:
        name: for messages and for `Moment.networks`.
        plain: numbers outside the blocks.
        wide: likewise.
        blocks: equal parts that can be brought to the device one by one; 0 if it has none.
        block: numbers of one of them, plain.
        linear: of `block`, the matrices of linear layers, which may be quantised.
        rows: outputs of these layers; each row of a matrix has its own scale when quantised.
    """

    name: str
    plain: int
    wide: int
    blocks: int = 0
    block: int = 0
    linear: int = 0
    rows: int = 0

    @classmethod
    def of(
        cls, name: str, modules: Sequence[nn.Module], blocks: Sequence[nn.Module] = ()
    ) -> "Network":
        """Count the numbers of modules that were cast to a type below float32.

        Args:
            name: of the network.
            modules: all of it; may be on the meta device.
            blocks: modules inside, alike.
        """
        total = {True: 0, False: 0}
        for module in modules:
            for parameter in module.parameters():
                total[parameter.dtype == torch.float32] += parameter.numel()
        if not blocks:
            return cls(name, total[False], total[True])
        block = sum(p.numel() for p in blocks[0].parameters())
        linears = [m for m in blocks[0].modules() if is_matrix(m)]
        return cls(
            name,
            total[False] - len(blocks) * block,
            total[True],
            len(blocks),
            block,
            sum(m.weight.numel() for m in linears),
            sum(m.out_features for m in linears),
        )


@dataclass(frozen=True)
class Moment:
    """A moment of a run at which memory may be at its fullest.

    Attributes:
        name: for messages.
        networks: those that must be on the device.
        plain: numbers alive besides weights and cache, per window and branch.
        wide: likewise.
        cache: plain numbers of the key-value cache, per window and branch.
        branched: whether guidance doubles it.
        single: whether it is for one at a time, however many windows run together.
    """

    name: str
    networks: tuple[str, ...]
    plain: int
    wide: int
    cache: int = 0
    branched: bool = False
    single: bool = False


@dataclass(frozen=True)
class MemoryNeeds:
    """What one model needs.

    Attributes:
        name: of the model.
        networks: all.
        moments: of one run, in order.
        window: input pixels per side of a window.
        scale: output pixels per input pixel and side.
        guided: whether guidance is on in the settings that it was tuned for.
    """

    name: str
    networks: tuple[Network, ...]
    moments: tuple[Moment, ...]
    window: int
    scale: int
    guided: bool = False


def transformer_moments(
    config: TransformerConfig, schedule: ScaleSchedule, known: int, *, plain: int, wide: int
) -> Iterator[Moment]:
    """The fullest pass, once inside attention and once inside the feed-forward.

    Args:
        config: of the transformer.
        schedule: of a window.
        known: scales that run as one pass, or 0.
        plain: numbers that are alive all along, such as the keys and values of a prompt.
        wide: likewise.
    """
    # Of a schedule without known scales the first pass has the prefix and the start.
    first = schedule.offsets[max(known, 1)]
    numbers = max(first, *schedule.lengths[max(known, 1) :]) * config.width
    hidden = max(1, round(config.mlp_ratio * config.width / 256)) * 256
    hidden *= numbers // config.width
    cache = 2 * config.depth * schedule.total * config.width
    for name, more_plain, more_wide in (
        # Input and its embedding, the normed input, queries and keys, and their rotation.
        ("attention", 5 * numbers, 9 * numbers),
        # Input, embedding, stream, and two normed ones; mixed and cast; up and its activation.
        ("feed-forward", 2 * numbers + 2 * hidden, 6 * numbers),
    ):
        yield Moment(
            name, ("transformer",), plain + more_plain, wide + more_wide, cache, branched=True
        )


def encoder_peak(widths: Sequence[int], latents: int, blocks: int) -> int:
    """Numbers alive at most in a convolutional encoder.

    Args:
        widths: channels of its levels, from the picture inwards.
        latents: side of its result.
        blocks: residual blocks per level.
    """
    sides = [latents << i for i in reversed(range(len(widths)))]
    levels = _blocks_peak([widths[0], *widths], sides, blocks)
    return max(*levels, 5 * widths[-1] * latents**2)


def decoder_peak(widths: Sequence[int], latents: int, blocks: int) -> int:
    """Numbers alive at most in a convolutional decoder.

    Args:
        widths: channels of its levels, from the latents outwards.
        latents: side of what it decodes.
        blocks: residual blocks per level.
    """
    sides = [latents << i for i in range(len(widths))]
    levels = list(_blocks_peak([widths[0], *widths], sides, blocks))
    # Enlarged and convolved, beside what they were made from.
    enlarged = [10 * width * side**2 for width, side in zip(widths[:-1], sides, strict=False)]
    return max(*levels, *enlarged, 5 * widths[0] * latents**2)


def _blocks_peak(widths: Sequence[int], sides: Sequence[int], blocks: int) -> Iterator[int]:
    """Numbers alive in the fullest residual block of each level.

    A block holds its input, what a convolution made, its norm and its activation; from the
    second block on the input of the level is alive as well.
    """
    for (before, after), side in zip(pairwise(widths), sides, strict=True):
        kept = max(3 * before, before + 3 * after)
        if blocks > 1:
            kept = max(kept, before + 4 * after)
        yield kept * side**2
