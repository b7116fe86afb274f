"""Give a small model more residual blocks, without changing what it computes.

    python benchmarks/deepen.py runs/decoder runs/deeper --decoder 4 --transformation 8

A new block ends in a convolution of zeros, so at first it is the identity; then `nsarm train
decoder --model runs/deeper` lets it learn, with `transformation = true` those of the transformation
network too. For models whose decoder has one level and whose transformation network is
convolutional, as nsarm-nano's.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import ConvolutionalTransformationConfig
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.weights.folder import load_model


def deepened(config: NsarmConfig, decoder: int, transformation: int) -> NsarmConfig:
    """The configuration with other numbers of blocks.

    Raises:
        ValueError: the model is of another kind, or would lose blocks.
    """
    autoencoder, network = config.autoencoder, config.transformation
    is_small = len(autoencoder.multipliers) == 1
    if not is_small or not isinstance(network, ConvolutionalTransformationConfig):
        raise ValueError(f"{config.name} is a model of another kind")
    if decoder < autoencoder.decoder_blocks or transformation < network.blocks:
        raise ValueError(f"{config.name} would lose blocks")
    return dataclasses.replace(
        config,
        autoencoder=dataclasses.replace(autoencoder, decoder_blocks=decoder),
        transformation=dataclasses.replace(network, blocks=transformation),
    )


def deepen(model: NsarmModel, decoder: int, transformation: int, seed: int = 0) -> NsarmModel:
    """The same function with more blocks, float32.

    Args:
        model: its weights are copied.
        decoder: residual blocks of the decoder's level, at least as many as it has.
        transformation: the same of the transformation network.
        seed: of the new blocks' first convolutions.

    Raises:
        ValueError: the model is of another kind, or would lose blocks.
    """
    config = deepened(model.config, decoder, transformation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deeper = initialise(NsarmModel(config))
    missing = deeper.load_state_dict(model.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        for name in missing:
            if ".conv2." in name:
                deeper.get_parameter(name).zero_()
    return deeper


def main(arguments: list[str] | None = None) -> None:
    """Write a deeper model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path)
    parser.add_argument("--decoder", type=int, required=True, metavar="BLOCKS")
    parser.add_argument("--transformation", type=int, required=True, metavar="BLOCKS")
    args = parser.parse_args(arguments)
    model = load_model(args.model)
    try:
        write_model(deepen(model, args.decoder, args.transformation), args.out)
    except ValueError as error:
        parser.error(f"{args.model}: {error}; give nsarm-nano or a model of its kind")


if __name__ == "__main__":
    main()
