"""What VARSR needs in memory, from its configuration alone; weights are counted as meta tensors."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from nsarm_cli.models.core.memory import (
    MemoryNeeds,
    Moment,
    Network,
    decoder_peak,
    transformer_moments,
)
from nsarm_cli.models.interface import DECODED_SIDE
from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel, cast_for_inference


def memory_needs(config: VarsrConfig) -> MemoryNeeds:
    """Count the numbers of a model."""
    with torch.device("meta"):
        model = cast_for_inference(VarsrModel(config), torch.bfloat16)
    tokenizer, transformer, schedule = model.tokenizer, config.transformer, config.schedule
    prefix: list[nn.Module] = [] if model.prefix is None else [model.prefix]
    around = [model.labels, model.refiner, tokenizer.before, tokenizer.after, tokenizer.quantiser]
    networks = (
        Network.of("prefix encoder", prefix),
        Network.of("transformer", [*around, model.transformer], list(model.transformer.blocks)),
        Network.of("tokenizer's encoder", [tokenizer.encoder]),
        Network.of("decoder", [tokenizer.decoder]),
    )
    side = config.sides[-1]
    pixels = side * config.tokenizer.stride
    # Positions, the condition's tokens, and the running sum beside the codes of a scale.
    fixed = schedule.total * transformer.width // transformer.heads
    fixed += 2 * schedule.prefix_length * transformer.width
    fixed += 4 * config.tokenizer.channels * side**2
    widths = [config.tokenizer.width * m for m in reversed(config.tokenizer.multipliers)]
    moments = (
        Moment(
            "prefix",
            ("prefix encoder",),
            _prefix_peak(config.prefix or (), pixels),
            3 * (pixels**2 + config.window**2),
        ),
        *transformer_moments(transformer, schedule, 0, plain=0, wide=fixed),
        # Condition and signal, the vector and its branch, and modulation in three parts, twice.
        Moment(
            "refine",
            ("transformer",),
            0,
            fixed + side**2 * (2 * transformer.width + 9 * config.refiner.width),
            2 * transformer.depth * schedule.total * transformer.width,
            branched=True,
        ),
        # The decoder stays in float32.
        Moment(
            "decode",
            ("decoder",),
            0,
            decoder_peak(widths, max(DECODED_SIDE, side), config.tokenizer.decoder_blocks),
            single=True,
        ),
    )
    return MemoryNeeds(
        config.name,
        networks,
        moments,
        config.window,
        config.scale,
        config.sampling.guidance != 1,
    )


def _prefix_peak(channels: Sequence[int], pixels: int) -> int:
    """A convolution's input and result, and its activation."""
    if not channels:
        return 0
    peak = (3 + 2 * channels[0]) * pixels**2
    for stage, (outer, inner) in enumerate(pairwise(channels)):
        side = pixels >> stage
        peak = max(peak, 3 * outer * side**2, outer * side**2 + 2 * inner * (side // 2) ** 2)
    return peak
