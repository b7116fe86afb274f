"""Model folders that somebody has published on the Hugging Face Hub.

Only JSON and safetensors are fetched, by name: a repository may hold more, and other kinds of
files can run code. Downloads resume, and `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and tokens
are respected, since it is all huggingface_hub's work.
"""

import re
from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.folder import CONFIG_FILE, FAMILIES, family_of, read_config_of
from nsarm_cli.weights.shards import INDEX_FILE, WEIGHTS_FILE
from nsarm_cli.weights.staging import RECORD_FILE

MODEL_FILES = (
    CONFIG_FILE,
    RECORD_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    "model-*-of-*.safetensors",
    "prompt.safetensors",
)
TEXT_FILES = ("text_encoder/*.json", "text_encoder/*.safetensors")

_FAILURES = (OSError, HFValidationError, EntryNotFoundError, httpx2.HTTPError)

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


def is_repository(model: str) -> bool:
    """Whether a text has the form `user/repo` or `user/repo@revision`."""
    return _NAME.fullmatch(model) is not None


@lru_cache
def fetch_model(model: str, *, text: bool = False) -> Path:
    """Get a model folder from the Hub, or from its cache on this machine.

    Args:
        model: `user/repo`, or `user/repo@revision` with a branch, a tag or a commit.
        text: also get the text encoder, which only runs with a prompt need.

    Returns:
        The folder in the cache.

    Raises:
        WeightsError: there is no such repository or revision, it holds no model folder, or
            the Hub cannot be reached.
    """
    # First what is small: another kind of repository is refused before gigabytes come.
    folder = fetch_config(model)
    repo, revision = _parts(model)
    wanted = [*MODEL_FILES, *(TEXT_FILES if text else ())]
    try:
        # The commit that the configuration came from, should the branch move meanwhile.
        return Path(snapshot_download(repo, revision=folder.name, allow_patterns=wanted))
    except _FAILURES as error:
        raise WeightsError(f"{model}: {_reason(error, revision)}") from error


@lru_cache
def fetch_config(model: str) -> Path:
    """Get the configuration alone, a few hundred bytes; see `fetch_model`.

    Returns:
        The folder in the cache, which may hold more.
    """
    repo, revision = _parts(model)
    try:
        folder = Path(hf_hub_download(repo, CONFIG_FILE, revision=revision)).parent
    except _FAILURES as error:
        raise WeightsError(f"{model}: {_reason(error, revision)}") from error
    read_config_of(folder, FAMILIES[family_of(folder)])
    return folder


def _parts(model: str) -> tuple[str, str | None]:
    """Repository and revision."""
    found = _NAME.fullmatch(model)
    if found is None:
        raise ValueError(f"{model} is not a repository's name")
    return found[1], found[2]


def _reason(error: Exception, revision: str | None) -> str:
    if isinstance(error, GatedRepoError):
        return "its owner must grant access; ask on its page, then run: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "is neither a folder here nor a model on the Hub; check the name, "
            "or run hf auth login if it is private"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the repository has no revision {revision}; check the part after the @"
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "is not a folder here, and the Hub cannot be reached or HF_HUB_OFFLINE is set; "
            "check the name and the connection"
        )
    if isinstance(error, EntryNotFoundError):
        return f"the repository has no {CONFIG_FILE}, so it is no model folder; give another"
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return f"cannot be fetched ({text}); check the name, the connection and the disk"
