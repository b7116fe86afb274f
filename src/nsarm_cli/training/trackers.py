"""Where the figures of a run go, to be looked at as curves: TensorBoard, wandb or trackio."""

import hashlib
import importlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from nsarm_cli.errors import ConfigError

_log = logging.getLogger(__name__)

FOLDER = "tensorboard"
"""Name of TensorBoard's folder in that of a run."""

_PROJECT = "nsarm"


class Tracker(Protocol):
    """Takes figures and pictures."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures after a step; a name is "training/loss"."""
        ...

    def picture(self, step: int, path: Path) -> None:
        """Take a picture of the validation."""
        ...

    def close(self) -> None:
        """Bring everything to where it is kept."""
        ...


def open_tracker(name: str, run: Path, settings: Mapping[str, Any]) -> Tracker:
    """Make the tracker of a run; nothing is written before there are figures.

    Args:
        name: "tensorboard", "wandb", "trackio", "none", or "auto", which is TensorBoard where it
            is installed.
        run: folder of the run.
        settings: of the run, shown beside its curves.

    Raises:
        ConfigError: the program is not installed.
    """
    if name == "auto":
        name = "tensorboard" if _is_installed("tensorboard") else "none"
    if name == "none":
        return Nowhere()
    if not _is_installed(name):
        raise ConfigError(
            f'tracker is "{name}", which is not installed; pip install {name}, or set tracker '
            'to "none"'
        )
    return TensorBoard(run) if name == "tensorboard" else Service(name, run, settings)


class Nowhere:
    """Forgets everything."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, step: int, path: Path) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TensorBoard:
    """Event files in the folder of the run, for `tensorboard --logdir`.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._writer: Any = None

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._open(step).add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        """Add a picture."""
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
        self._open(step).add_image("validation/pictures", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int) -> Any:
        if self._writer is None:
            module = importlib.import_module("torch.utils.tensorboard")
            # A run that goes on from a checkpoint does some steps again: the later ones count.
            folder = str(self._run / FOLDER)
            self._writer = module.SummaryWriter(folder, purge_step=step, flush_secs=30)
        return self._writer


class Service:
    """wandb, or trackio, which has the same functions. Where it sends them is its own affair.

    Args:
        name: of the module.
        run: folder of the run; a run that goes on adds to its own curves.
        settings: of the run.
    """

    def __init__(self, name: str, run: Path, settings: Mapping[str, Any]) -> None:
        self._name = name
        self._path = run
        self._settings = dict(settings)
        self._module: Any = None

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._begin().log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        """Add a picture."""
        module = self._begin()
        module.log({"validation/pictures": module.Image(str(path))}, step=step)

    def close(self) -> None:
        """Send what waits."""
        if self._module is not None:
            self._module.finish()

    def _begin(self) -> Any:
        if self._module is None:
            module = importlib.import_module(self._name)
            place = str(self._path.resolve())
            mark = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            name = f"{self._path.resolve().name}-{mark}"
            own = {"id": name, "dir": place} if self._name == "wandb" else {}
            module.init(project=_PROJECT, name=name, config=self._settings, resume="allow", **own)
            self._module = module
        return self._module


class Careful:
    """Another tracker, whose faults are told once and do not end the training.

    Args:
        tracker: the other.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker = tracker

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Hand figures on."""
        self._try("figures", step, values)

    def picture(self, step: int, path: Path) -> None:
        """Hand a picture on, if it is there."""
        if path.exists():
            self._try("picture", step, path)

    def close(self) -> None:
        """Close the other."""
        self._try("close")

    def _try(self, method: str, *arguments: Any) -> None:
        try:
            getattr(self._tracker, method)(*arguments)
        except Exception as error:
            self._tracker = Nowhere()
            _log.warning("the figures are no longer recorded: %s", error)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
