"""From the folder of a run to a model for others: merged, averaged, described, and published."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import httpx2
import torch
from huggingface_hub import HfApi
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.interface import Sampling
from nsarm_cli.training.atomic import write_text_atomically
from nsarm_cli.training.card import CARD_FILE, model_card
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.lora import ADAPTER_FILE, adapt, merge
from nsarm_cli.training.model_folder import AVERAGE_FILE, write_model
from nsarm_cli.training.prompt import copy_text
from nsarm_cli.training.record import SETTINGS_FILE
from nsarm_cli.training.settings_file import read_config
from nsarm_cli.training.start import starting_model
from nsarm_cli.weights.families import PROMPT_FILE
from nsarm_cli.weights.folder import CONFIG_FILE, AnyModel, load_any_model
from nsarm_cli.weights.shards import INDEX_FILE, WEIGHTS_FILE
from nsarm_cli.weights.snapshot import TEXT_FILES
from nsarm_cli.weights.strict import load_strictly

_FILES = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE, PROMPT_FILE)
_FORMATS = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


def export(
    run: Path,
    out: Path,
    dtype: torch.dtype,
    sampling: Sampling | None = None,
    color: str | None = None,
    *,
    averaged: bool = False,
    repo: str | None = None,
) -> None:
    """Write the model of a run for others to use, with a model card.

    What LoRA has learned is merged into the weights that the run started from.

    Args:
        run: folder of a finished run, or any model folder.
        out: folder to write; may not hold a model yet.
        dtype: of the stored weights.
        sampling: new default settings, or None to keep the model's.
        color: new default colour correction, or None to keep the model's.
        averaged: take the moving average of the weights that the run kept (`ema`).
        repo: "user/name" where it will be published, for the card.

    Raises:
        ConfigError: `out` holds files of a model already, or cannot be written; the run kept no
            average.
        WeightsError: `run` is not a model folder.
    """
    there = next((out / name for name in (*_FILES, INDEX_FILE) if (out / name).exists()), None)
    if there is not None:
        raise ConfigError(f"{there}: exists already; give another folder or remove the file")
    model = _model(run, dtype, averaged=averaged)
    config = dataclasses.replace(
        model.config, sampling=sampling or model.config.sampling, color=color or model.config.color
    )
    write_model(model.to(dtype), out, config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = repo or out.resolve().name
    card = model_card(run, config, name, parameters, _FORMATS[dtype])
    write_text_atomically(card, out / CARD_FILE)
    copy_text(run, out)


def publish(folder: Path, repo: str, *, private: bool) -> str:
    """Upload an exported model to the Hugging Face Hub, and nothing else that is in the folder.

    Args:
        folder: of the model.
        repo: "user/name"; made if it does not exist.
        private: whether a new one is.

    Returns:
        The address of the model.

    Raises:
        ConfigError: the Hub refuses, or cannot be reached.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[*_FILES, *TEXT_FILES],
            commit_message="Upload a model of nsarm",
        )
    # The library wraps what goes wrong in the middle of a file in RuntimeError or ValueError.
    except (OSError, httpx2.HTTPError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"{repo}: cannot be uploaded ({reason}); the model is in {folder}; check the name and "
            f"the connection, or log in with hf auth login, then: hf upload {repo} {folder}"
        ) from error
    return str(address)


def _model(run: Path, dtype: torch.dtype, *, averaged: bool) -> AnyModel:
    source = run / AVERAGE_FILE
    if averaged and not source.exists():
        raise ConfigError(f"{run}: kept no average; train with ema above 0 or leave out --ema")
    if (run / ADAPTER_FILE).exists():
        config = read_config(Stage2Config, run / SETTINGS_FILE)
        kept = None if dtype == torch.float32 else dtype  # as it is stored, an 8B fits in memory
        model = starting_model(config, kept)
        adapt(model, config.lora, config.lora_scale, dtype)
        merge(model, source if averaged else run / ADAPTER_FILE)
        return model
    loaded = load_any_model(run)
    if averaged:
        load_strictly(loaded, _read(source), str(source))
    return loaded


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); train again") from error
