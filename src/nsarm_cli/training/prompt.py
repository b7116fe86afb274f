"""What a model with text carries with it: features of its default prompt, and its encoder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.text.features import KEY, read_features
from nsarm_cli.training.captions import StoredFeatures
from nsarm_cli.training.checkpoint import save_atomically
from nsarm_cli.training.config import BitsConfig, PartsConfig, RunConfig
from nsarm_cli.training.record import lineage
from nsarm_cli.weights.families import PROMPT_FILE, TEXT_ENCODER
from nsarm_cli.weights.folder import FAMILIES, AnyConfig

_UNCONDITIONAL = "conditioner.unconditional"


def write_prompt(
    config: RunConfig, model: AnyConfig, weights: Mapping[str, Tensor], folder: Path
) -> None:
    """Write the features that the model of a run runs under by default; none without text.

    They are those of the prompt that pictures without a caption were given. A run without
    captions has taught the unconditional caption, which then is the prompt; a stage that teaches
    no text keeps the prompt of the model that it began with.

    Args:
        config: of the run.
        model: configuration of its model.
        weights: of its model.
        folder: of the run.

    Raises:
        ConfigError: the folder cannot be written, or the features are damaged.
        WeightsError: the text encoder cannot be loaded.
    """
    width = FAMILIES[model.family].text_width(model)
    if width is None:
        return
    features = _features(config, width)
    if features is None:
        features = weights[_UNCONDITIONAL]
    save_atomically({KEY: features.float()}, folder / PROMPT_FILE, {"format": "pt"})


def copy_text(run: Path, out: Path) -> None:
    """Copy the prompt of a run, and the encoder that it was trained with, to its exported model.

    Raises:
        ConfigError: a file cannot be copied.
    """
    prompt = run / PROMPT_FILE
    if not prompt.is_file():
        return
    encoder = _encoder_of(run)
    files = [] if encoder is None else sorted(encoder.glob("*.json"))
    files += [] if encoder is None else sorted(encoder.glob("*.safetensors"))
    try:
        shutil.copyfile(prompt, out / PROMPT_FILE)
        for file in files:
            (out / TEXT_ENCODER).mkdir(exist_ok=True)
            shutil.copyfile(file, out / TEXT_ENCODER / file.name)
    except OSError as error:
        raise ConfigError(
            f"{out}: the text encoder cannot be copied there ({error.strerror}); free space or "
            "give another folder"
        ) from error


def _features(config: RunConfig, width: int) -> Tensor | None:
    if isinstance(config, BitsConfig):
        if config.features:
            return StoredFeatures(Path(config.features)).encode([config.prompt])[0]
        if config.text_encoder:
            folder = Path(config.text_encoder)
            encoder = TextEncoder.load(folder, torch.device("cpu"), torch.float32)
            return encoder.encode([config.prompt])[0]
        return None
    taken = config.transformer_from if isinstance(config, PartsConfig) else ""
    for source in filter(None, (taken, config.model)):
        if (Path(source) / PROMPT_FILE).is_file():
            return read_features(Path(source) / PROMPT_FILE, width)
    return None


def _encoder_of(run: Path) -> Path | None:
    """The text encoder of the newest run that had one, or of the model that it all began with."""
    for folder, settings in lineage(run):
        for encoder in (Path(str(settings.get("text_encoder", ""))), folder / TEXT_ENCODER):
            if (encoder / "config.json").is_file() and encoder != Path():
                return encoder
    return None
