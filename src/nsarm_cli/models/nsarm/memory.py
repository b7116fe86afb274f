"""What NSARM needs in memory, from its configuration alone; weights are counted as meta tensors."""

import torch

from nsarm_cli.models.core.memory import (
    MemoryNeeds,
    Moment,
    Network,
    decoder_peak,
    encoder_peak,
    transformer_moments,
)
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference
from nsarm_cli.models.nsarm.transformation import TransformationConfig

PROMPT_TOKENS = 64
"""Length of a prompt when none is known; a sentence is shorter."""


def memory_needs(config: NsarmConfig, prompt_tokens: int = PROMPT_TOKENS) -> MemoryNeeds:
    """Count the numbers of a model.

    Args:
        config: of the model.
        prompt_tokens: length of the prompt, for models with text.
    """
    with torch.device("meta"):
        model = cast_for_inference(NsarmModel(config), torch.bfloat16)
    networks = (
        Network.of("encoder", [model.autoencoder.encoder]),
        Network.of("transformation network", [model.transformation]),
        Network.of(
            "transformer", [model.conditioner, model.transformer], list(model.transformer.blocks)
        ),
        Network.of("decoder", [model.autoencoder.decoder]),
    )
    autoencoder, transformer, schedule = config.autoencoder, config.transformer, config.schedule
    pixels = config.window * config.enlarge
    latents = pixels // autoencoder.stride
    side = schedule.latents[-1][0]
    widths = [autoencoder.width * m for m in autoencoder.multipliers]
    text = 2 * transformer.depth * prompt_tokens * transformer.width if transformer.cross else 0
    # Positions, and the running sum beside the codes of a scale.
    fixed = schedule.total * transformer.width // transformer.heads
    fixed += 4 * autoencoder.channels * side**2
    moments = (
        Moment(
            "encode",
            ("encoder",),
            encoder_peak(widths, latents, autoencoder.encoder_blocks),
            3 * (pixels**2 + config.window**2),
        ),
        Moment(
            "transformation", ("transformation network",), _transformation_peak(config, latents), 0
        ),
        *transformer_moments(transformer, schedule, config.preliminary, plain=text, wide=fixed),
        Moment(
            "decode", ("decoder",), decoder_peak(widths[::-1], side, autoencoder.decoder_blocks), 0
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


def _transformation_peak(config: NsarmConfig, latents: int) -> int:
    transformation = config.transformation
    if not isinstance(transformation, TransformationConfig):
        return 5 * transformation.width * latents**2
    peaks: list[int] = [
        # Scores and weights of attention, kept in full by PyTorch's encoder layer.
        4 * branch.heads * (branch.side**2) ** 2 + 10 * branch.side**2 * branch.width
        for branch in transformation.branches
    ]
    return max(peaks)
