"""Put a run together: model, stage, data and folder; then hand them to the loop."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.runtime import PRECISIONS
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.training import record
from nsarm_cli.training.captions import Encoder, StoredFeatures
from nsarm_cli.training.checkpoint import save_atomically
from nsarm_cli.training.config import (
    BitsConfig,
    DecoderConfig,
    PartsConfig,
    PriorConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.decoder import DecoderStage
from nsarm_cli.training.distributed import Ranks, part_of_batch
from nsarm_cli.training.economy import choose_attention, economise, let_caches_wait
from nsarm_cli.training.encode import check_encoded
from nsarm_cli.training.feed import check_data, training_batches, validation_batches
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.loop import Progress, run
from nsarm_cli.training.lora import ADAPTER_FILE, adapt, adapter_of
from nsarm_cli.training.model_folder import (
    AVERAGE_FILE,
    write_configuration,
    write_weights,
)
from nsarm_cli.training.pace import Pace, peak_flops
from nsarm_cli.training.prior import Prior
from nsarm_cli.training.prompt import write_prompt
from nsarm_cli.training.rehearsal import meta_stage, rehearse
from nsarm_cli.training.settings_file import format_config
from nsarm_cli.training.stage1 import Stage1, check_window
from nsarm_cli.training.stage2 import Stage2
from nsarm_cli.training.start import starting_config, starting_model
from nsarm_cli.training.step import Stage, Stepper
from nsarm_cli.training.tokenizer import TokenizerStage
from nsarm_cli.training.trackers import open_tracker
from nsarm_cli.training.varsr import VarsrStage
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.training.varsr_start import initialise_varsr, starting_varsr, starting_varsr_config
from nsarm_cli.training.watch import Watch
from nsarm_cli.weights.folder import AnyConfig, AnyModel


def train(
    config: RunConfig,
    data: Sequence[str],
    validation: Sequence[str],
    out: Path,
    *,
    ranks: Ranks,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
    poor: Sequence[str] = (),
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
        poor: pictures of poor quality to train on, where the stage learns from them.

    Returns:
        The number of steps done in all.

    Raises:
        ConfigError: the settings, the data or the folder do not fit together.
        WeightsError: the starting model cannot be loaded.
    """
    for words in (data, validation, poor):
        check_data(words)  # before the model, which takes longer
    part = part_of_batch(config.batch, config.accumulate, ranks)
    model = _starting_model(config)
    _check_crop(config, model)
    stage = prepare_stage(config, model, ranks.device)
    choose_attention(stage.trained, config.attention, ranks.device)
    economise(stage.trained, config.recompute, compiled=config.compile)
    if config.offload:
        let_caches_wait(stage.module)
    batches = training_batches(config, model.config, data, ranks.device, part, poor=poor)
    fixed = validation_batches(config, model.config, validation, ranks.device, part)
    _check_features(config, data, validation, ranks)
    stepper = Stepper(stage, config, out, ranks)
    # After it has resumed: what a refused command was given is not what the run was made from.
    if ranks.is_first:
        record.begin(out, config, format_config(config), [*data, *poor], validation)
    tracker = open_tracker(config.tracker, out, dataclasses.asdict(config))

    def note_and_report(progress: Progress) -> None:
        if ranks.is_first and progress.validation is not None:
            record.note(out, progress.step, progress.values | _apart(progress.validation))
        report(progress)

    with Watch(tracker, note_and_report) as watch:
        done = run(
            stepper,
            config,
            batches,
            fixed,
            out,
            ranks=ranks,
            report=watch if ranks.is_first else report,
            should_stop=should_stop,
            pace=_pace(config, model.config, ranks),
        )
    _write_models(stepper, config, model, out, ranks)
    return done


def _starting_model(config: RunConfig) -> AnyModel:
    """The model that a configuration class belongs to, as its settings say."""
    if isinstance(config, VarsrStageConfig):
        return starting_varsr(config)
    if isinstance(config, PartsConfig):
        return starting_model(config, _frozen_dtype(config))
    raise TypeError(f"no model for {type(config).__name__}")


def starting_config_of(config: RunConfig) -> AnyConfig:
    """The configuration of the model that a run starts from, without its weights.

    Raises:
        ConfigError: `model` is neither a preset nor a folder.
        WeightsError: the folder has no configuration of the stage's family.
    """
    if isinstance(config, VarsrStageConfig):
        return starting_varsr_config(config)
    if isinstance(config, PartsConfig):
        return starting_config(config)
    raise TypeError(f"no model for {type(config).__name__}")


def fresh_model(config: AnyConfig) -> AnyModel:
    """A model with fresh weights."""
    if isinstance(config, NsarmConfig):
        return initialise(NsarmModel(config))
    return initialise_varsr(VarsrModel(config))


def prepare_stage(config: RunConfig, model: AnyModel, device: torch.device) -> Stage:
    """The stage that a configuration class belongs to, with LoRA's layers if it asks for them."""
    if isinstance(model, VarsrModel):
        if not isinstance(config, VarsrStageConfig):
            raise TypeError(f"no stage for {type(config).__name__}")
        return VarsrStage(model, config, _perceptual(config, device))
    if isinstance(config, Stage2Config) and config.lora:
        adapt(model, config.lora, config.lora_scale, PRECISIONS[config.precision])
    return build_stage(config, model, device)


def _pace(config: RunConfig, model: AnyConfig, ranks: Ranks) -> Pace:
    """What tells the speed of a run, in FLOPs of a step as if nothing were computed twice."""

    def flops() -> float:
        stage = meta_stage(config, model, prepare_stage)
        return config.batch * rehearse(stage, config, model, 1).flops

    dtype = PRECISIONS[config.precision]
    return Pace(config.batch, flops, lambda: ranks.world * peak_flops(ranks.device, dtype))


def _frozen_dtype(config: RunConfig) -> torch.dtype | None:
    """The type in which LoRA keeps what it freezes; None where all is float32."""
    adapts = isinstance(config, Stage2Config) and config.lora > 0
    return PRECISIONS["bf16"] if adapts and config.precision == "bf16" else None


def _apart(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of validation under names of their own."""
    return {f"validation.{name}": value for name, value in figures.items()}


def _write_models(
    stepper: Stepper, config: RunConfig, model: AnyModel, out: Path, ranks: Ranks
) -> None:
    """Write the model, or what LoRA has learned, and beside it the average where there is one."""
    weights = stepper.weights(model)
    averaged = None if stepper.average is None else stepper.weights(model, averaged=True)
    if not ranks.is_first:
        return
    if isinstance(config, Stage2Config) and config.lora:
        save_atomically(adapter_of(weights), out / ADAPTER_FILE, {"format": "pt"})
        write_configuration(model.config, out)
        averaged = None if averaged is None else adapter_of(averaged)
    else:
        write_weights(weights, model.config, out)
    if averaged is not None:
        save_atomically(averaged, out / AVERAGE_FILE, {"format": "pt"})
    write_prompt(config, model.config, weights, out)


def build_stage(config: RunConfig, model: NsarmModel, device: torch.device) -> Stage:
    """The stage that a configuration class belongs to."""
    model.autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.transformation.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(config, TokenizerConfig):
        return TokenizerStage(model, config, _perceptual(config, device))
    if isinstance(config, PriorConfig):
        return Prior(model, config, _encoder(config, device))
    if isinstance(config, Stage1Config):
        return Stage1(model, _perceptual(config, device))
    if isinstance(config, Stage2Config):
        return Stage2(model, config, _encoder(config, device), _perceptual(config, device))
    if isinstance(config, DecoderConfig):
        return DecoderStage(model, config, _perceptual(config, device), _dists(config, device))
    raise TypeError(f"no stage for {type(config).__name__}")


def _check_crop(config: RunConfig, model: AnyModel) -> None:
    """Refuse, before any picture is read, crops that the stage cannot use."""
    if isinstance(model, VarsrModel) or not isinstance(config, TokenizerConfig):
        check_window(model.config, (config.crop, config.crop))
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


def _check_features(
    config: RunConfig, data: Sequence[str], validation: Sequence[str], ranks: Ranks
) -> None:
    """Refuse stored features that lack a caption; found late, it would cost what was learned."""
    if not isinstance(config, BitsConfig) or not config.features:
        return
    fault = ""
    if ranks.is_first:
        stored, words = StoredFeatures(Path(config.features)), {"--data": data}
        if validation:
            words["--val"] = validation
        try:
            check_encoded(stored, config.prompt, words, short=config.short_captions > 0)
        except ConfigError as error:
            fault = str(error)
    fault = ranks.share(fault)
    if fault:
        raise ConfigError(fault)


def _perceptual(config: RunConfig, device: torch.device) -> PerceptualDistance | None:
    if not config.perceptual_weights:
        if not isinstance(config, TokenizerConfig | DecoderConfig) or config.perceptual == 0:
            return None
        raise ConfigError(
            "perceptual is above 0 but perceptual_weights names no file; "
            "make one with nsarm weights measures, or set perceptual = 0"
        )
    return PerceptualDistance.from_file(Path(config.perceptual_weights)).to(device)


def _dists(config: DecoderConfig, device: torch.device) -> Dists | None:
    if config.dists_weights:
        return Dists.from_file(Path(config.dists_weights)).to(device)
    if config.dists == 0:
        return None
    raise ConfigError(
        "dists is above 0 but dists_weights names no file; "
        "make one with nsarm weights measures, or set dists = 0"
    )
