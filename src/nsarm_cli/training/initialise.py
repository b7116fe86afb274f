"""Fresh weights for training from nothing."""

import math

from torch import nn

from nsarm_cli.models.core.attention import CrossAttention, SelfAttention
from nsarm_cli.models.core.block import FeedForward, Modulation, SharedModulation
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.model import NsarmModel


def initialise(model: NsarmModel) -> NsarmModel:
    """Set the transformer's weights as Infinity does; convolutions keep PyTorch's own.

    Matrices are normal with standard deviation sqrt(1/(3 c)); the outputs of both branches
    are reduced with the depth, so that a deep stack starts near the identity; the gates
    start at one, so that each block matters from the first step of a short run.
    """
    transformer = model.transformer
    width, depth = transformer.config.width, transformer.config.depth
    std = math.sqrt(1 / (3 * width))
    for part in (transformer, model.conditioner):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    shrink = 1 / math.sqrt(2 * depth)
    for module in transformer.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            module.out.weight.data.mul_(shrink)
        elif isinstance(module, FeedForward):
            module.down.weight.data.mul_(shrink)
        elif isinstance(module, Modulation):
            module.weight.data.mul_(1e-3)
        elif isinstance(module, SharedModulation):
            nn.init.trunc_normal_(module.offset, std=1 / math.sqrt(width))
            module.offset.data[:, :, :2] += 1.0
    transformer.head.modulation.weight.data.mul_(1e-3)
    transformer.head.out.weight.data.mul_(0.02)
    if isinstance(model.conditioner, ConstantConditioner):
        nn.init.trunc_normal_(model.conditioner.constant, std=std)
    nn.init.trunc_normal_(transformer.start, std=std)
    return model
