"""Put a run together: model, stage, data and folder; then hand them to the loop."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.runtime import PRECISIONS
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.training.captions import Encoder, StoredFeatures
from nsarm_cli.training.checkpoint import save_atomically
from nsarm_cli.training.config import (
    BitsConfig,
    DecoderConfig,
    PriorConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.decoder import DecoderStage
from nsarm_cli.training.distributed import Ranks, part_of_batch
from nsarm_cli.training.economy import economise
from nsarm_cli.training.feed import training_batches, validation_batches
from nsarm_cli.training.loop import Progress, run
from nsarm_cli.training.prior import Prior
from nsarm_cli.training.settings_file import write_config
from nsarm_cli.training.stage1 import Stage1, check_window
from nsarm_cli.training.stage2 import Stage2
from nsarm_cli.training.start import starting_model
from nsarm_cli.training.step import Stage, Stepper
from nsarm_cli.training.tokenizer import TokenizerStage
from nsarm_cli.weights.folder import CONFIG_FILE, load_model
from nsarm_cli.weights.shards import WEIGHTS_FILE

AVERAGE_FILE = "average.safetensors"
"""Name of the averaged weights in the folder of a run that keeps them."""


def train(
    config: RunConfig,
    data: Sequence[str],
    validation: Sequence[str],
    out: Path,
    *,
    ranks: Ranks,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Run or resume one stage and write the model folder.

    Args:
        config: of the stage; its class says which.
        data: pictures to train on; see `feed.training_batches`.
        validation: the same for the fixed validation set; empty leaves it out.
        out: folder for the settings, the checkpoint, validation pictures and the model.
        ranks: the processes that train together, and where this one computes.
        report: called after every step.
        should_stop: asked after every step.

    Returns:
        The number of steps done in all.

    Raises:
        ConfigError: the settings, the data or the folder do not fit together.
        WeightsError: the starting model cannot be loaded.
    """
    part = part_of_batch(config.batch, config.accumulate, ranks)
    model = starting_model(config)
    _check_crop(config, model)
    stage = build_stage(config, model, ranks.device)
    economise(stage.trained, config.recompute, compiled=config.compile)
    batches = training_batches(config, model.config, data, ranks.device, part)
    fixed = validation_batches(config, model.config, validation, ranks.device, part)
    if ranks.is_first:
        _begin_folder(config, out)
    stepper = Stepper(stage, config, out, ranks)
    done = run(
        stepper,
        config,
        batches,
        fixed,
        out,
        ranks=ranks,
        report=report,
        should_stop=should_stop,
    )
    _write_models(stepper, model, out, ranks)
    return done


def _begin_folder(config: RunConfig, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_config(config, out / "training.toml")
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written ({error.strerror}); choose another --out folder"
        ) from error


def _write_models(stepper: Stepper, model: NsarmModel, out: Path, ranks: Ranks) -> None:
    """Write the model, and beside it the averaged weights where the run keeps them."""
    weights = stepper.weights(model)
    if ranks.is_first:
        write_weights(weights, model.config, out)
    if stepper.average is not None:
        averaged = stepper.weights(model, averaged=True)
        if ranks.is_first:
            save_atomically(averaged, out / AVERAGE_FILE, {"format": "pt"})


def build_stage(config: RunConfig, model: NsarmModel, device: torch.device) -> Stage:
    """The stage that a configuration class belongs to."""
    model.autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.transformation.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(config, TokenizerConfig):
        return TokenizerStage(model, config, _perceptual(config, device))
    if isinstance(config, PriorConfig):
        return Prior(model, config, _encoder(config, device))
    if isinstance(config, Stage1Config):
        return Stage1(model)
    if isinstance(config, Stage2Config):
        return Stage2(model, config, _encoder(config, device))
    if isinstance(config, DecoderConfig):
        return DecoderStage(model, config, _perceptual(config, device))
    raise TypeError(f"no stage for {type(config).__name__}")


def export(
    run: Path, out: Path, dtype: torch.dtype, sampling: Sampling | None, color: str | None
) -> None:
    """Write the model of a run for others to use.

    Args:
        run: folder of a finished run, or any model folder.
        out: folder to write; may not hold a model yet.
        dtype: of the stored weights.
        sampling: new default settings, or None to keep the model's.
        color: new default colour correction, or None to keep the model's.

    Raises:
        ConfigError: `out` holds a model already, or cannot be written.
        WeightsError: `run` is not a model folder.
    """
    if (out / WEIGHTS_FILE).exists():
        raise ConfigError(f"{out}: holds a model already; give another folder or remove it")
    model = load_model(run)
    config = dataclasses.replace(
        model.config, sampling=sampling or model.config.sampling, color=color or model.config.color
    )
    write_model(model.to(dtype), out, config)


def write_model(model: NsarmModel, folder: Path, config: NsarmConfig | None = None) -> None:
    """Write the weights and the configuration that `nsarm upscale --model FOLDER` reads."""
    write_weights(model.state_dict(), config or model.config, folder)


def write_weights(weights: Mapping[str, Tensor], config: NsarmConfig, folder: Path) -> None:
    """Write a model that is not at hand as a module."""
    save_atomically(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    values = config.to_dict()
    text = json.dumps({"family": "nsarm", "config": values}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _check_crop(config: RunConfig, model: NsarmModel) -> None:
    """Refuse, before any picture is read, crops that the stage cannot use."""
    if not isinstance(config, TokenizerConfig):
        check_window(model, (config.crop, config.crop))
    elif config.crop % model.config.autoencoder.stride:
        raise ConfigError(
            f"crop is {config.crop}; give a multiple of {model.config.autoencoder.stride}, "
            "the pixels of a latent"
        )


def _encoder(config: BitsConfig, device: torch.device) -> Encoder | None:
    if config.features:
        return StoredFeatures(Path(config.features))
    if config.text_encoder:
        dtype = PRECISIONS[config.precision]
        return TextEncoder.load(Path(config.text_encoder), device, dtype, resident=True)
    return None


def _perceptual(
    config: TokenizerConfig | DecoderConfig, device: torch.device
) -> PerceptualDistance | None:
    if config.perceptual == 0:
        return None
    if not config.perceptual_weights:
        raise ConfigError(
            "perceptual is above 0 but perceptual_weights names no file; "
            "make one with nsarm weights measures, or set perceptual = 0"
        )
    return PerceptualDistance.from_file(Path(config.perceptual_weights)).to(device)
