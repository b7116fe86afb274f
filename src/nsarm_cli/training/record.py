"""What a run leaves for those who come later: what it was made from, and how it went.

`run.json` says the stage and the data; `metrics.jsonl` has a line per validation.
"""

import json
import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsarm_cli import __version__
from nsarm_cli.training.atomic import write_text_atomically
from nsarm_cli.training.config import (
    DecoderConfig,
    PriorConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.varsr_settings import VarsrStageConfig

_log = logging.getLogger(__name__)

STAGES: dict[type[RunConfig], str] = {
    TokenizerConfig: "tokenizer",
    PriorConfig: "prior",
    Stage1Config: "stage1",
    Stage2Config: "stage2",
    DecoderConfig: "decoder",
    VarsrStageConfig: "varsr",
}
"""Names of the stages, as commands of `nsarm train`."""

_SOURCES = ("model", "transformer_from", "transformation_from", "autoencoder_from")
"""Settings that name folders which a run's model was made from."""

SETTINGS_FILE = "training.toml"
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Record:
    """What is known of a run.

    Attributes:
        stage: name of the stage, or "" where nothing is known.
        data: what it was trained on, as given.
        validation: what it was validated on.
        version: of nsarm.
        settings: the text of its settings.
        metrics: its last validation, with the step.
    """

    stage: str = ""
    data: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    version: str = ""
    settings: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def begin(
    out: Path, config: RunConfig, settings: str, data: Sequence[str], validation: Sequence[str]
) -> None:
    """Write down what a run is made from.

    Raises:
        ConfigError: the folder cannot be written.
    """
    told = {
        "nsarm": __version__,
        "stage": STAGES[type(config)],
        "data": list(data),
        "validation": list(validation),
    }
    write_text_atomically(settings, out / SETTINGS_FILE)
    write_text_atomically(json.dumps(told, indent=2) + "\n", out / RUN_FILE)


def note(out: Path, step: int, figures: Mapping[str, float]) -> None:
    """Add a validation; a run that goes on may tell of a step again, and the last counts.

    Where the disk refuses, it is told, and training goes on.
    """
    try:
        with (out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
    except OSError as error:
        _log.warning("%s: cannot be written (%s)", out / METRICS_FILE, error.strerror)


def read(run: Path) -> Record:
    """What is known of the run of a folder; of a folder without records, nothing."""
    told: dict[str, Any] = _json(run / RUN_FILE)
    lines = _text(run / METRICS_FILE).splitlines()
    try:
        metrics = json.loads(lines[-1]) if lines else {}
    except ValueError:  # cut off when a machine failed
        metrics = {}
    return Record(
        str(told.get("stage", "")),
        tuple(map(str, told.get("data", ()))),
        tuple(map(str, told.get("validation", ()))),
        str(told.get("nsarm", "")),
        _text(run / SETTINGS_FILE),
        metrics,
    )


def lineage(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and settings of a run, then of those that its model was made from, newest first.

    Settings are empty where a folder has none.
    """
    waiting, seen = [run], set[Path]()
    while waiting:
        folder = waiting.pop(0)
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            settings = tomllib.loads(_text(folder / SETTINGS_FILE))
        except tomllib.TOMLDecodeError:
            settings = {}
        yield folder, settings
        waiting += [Path(source) for source in map(settings.get, _SOURCES) if source]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
