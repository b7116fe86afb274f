"""Save and resume a run: model, optimiser, average and step, without pickles.

A checkpoint is a folder `checkpoints/step-00000120` with one safetensors file per process,
written in the background by `torch.distributed.checkpoint`. It takes its name when all files
are on the disk, so a folder of that name is whole. Every tensor says where in the whole it
belongs, so any number of processes can load it.
"""

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.distributed import Ranks, is_loss_of_contact

_STEP = re.compile(r"step-(\d{8,})")
_UNDER_WAY = re.compile(r"\.step-\d{8,}\.tmp")
_FILES = "shard-*.safetensors"
_OLD = "checkpoint.safetensors"
_GIGA = 1e9


class Checkpoints:
    """The checkpoints of a run.

    Args:
        run: folder of the run.
        keep: how many of the newest stay. Nothing else is ever deleted, but for what a killed
            process left half written.
        ranks: the processes of the run; each has its own part of the tensors.
    """

    def __init__(self, run: Path, keep: int, ranks: Ranks) -> None:
        self.folder = run / "checkpoints"
        self._run = run
        self._keep = keep
        self._ranks = ranks
        self._writing: Future[Any] | None = None
        self._step = 0
        self._prunes = True
        # With one process there is nobody to talk to, as intended.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    def save(self, tensors: Mapping[str, Tensor], step: int, *, prune: bool = True) -> None:
        """Begin to write; the tensors may change as soon as this returns.

        Args:
            tensors: by name.
            step: updates that they have had.
            prune: remove the oldest checkpoints when it is on the disk.

        Raises:
            ConfigError: too little space, or the save before this one failed.
        """
        self.finish()
        if self._ranks.share(self.place(step).exists()):
            return
        self._check_space(tensors)
        state = {**tensors, "step": torch.tensor(step)}
        self._step = step
        self._prunes = prune
        writer = HuggingFaceStorageWriter(str(self._unfinished(step)), save_distributed=True)
        future = async_save(state, storage_writer=writer, process_group=self._ranks.files)
        assert isinstance(future, Future)  # noqa: S101  (only other stagers give more)
        self._writing = future

    def poll(self) -> None:
        """Give a save that is on the disk its name.

        Raises:
            ConfigError: it failed.
        """
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait for a save that is under way.

        Raises:
            ConfigError: it failed; earlier checkpoints are as they were.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        unfinished = self._unfinished(self._step)
        try:
            writing.result()
            if self._ranks.is_first:
                unfinished.replace(self.place(self._step))
                _sync(self.folder)
                if self._prunes:
                    self._prune()
        except (OSError, SafetensorError, CheckpointException, RuntimeError) as failure:
            if self._ranks.is_first:
                _remove(unfinished)
            error = _first_fault(failure)
            if is_loss_of_contact(error):
                raise error from None
            raise ConfigError(
                f"{self.place(self._step)}: cannot be written ({_reason(error)}); "
                "free space or use another --out folder"
            ) from failure

    def resume(self, tensors: Mapping[str, Tensor]) -> tuple[int, frozenset[str]]:
        """Load the newest checkpoint into tensors.

        Returns:
            Its step, and names of the tensors of an average that it does not have, which stay as
            they are; 0 and all names when there is no checkpoint.

        Raises:
            ConfigError: it is damaged or belongs to another model or stage.
        """
        if self._ranks.is_first:
            for leftover in self._entries(_UNDER_WAY):
                _remove(leftover)
        path = self._ranks.share(self.newest())
        if path is None:
            if (self._run / _OLD).exists():
                raise ConfigError(
                    f"{self._run / _OLD}: was written by an older nsarm, which kept checkpoints "
                    f"otherwise; start from its model with --model {self._run} and another --out"
                )
            return 0, frozenset(tensors)
        step = torch.zeros((), dtype=torch.int64)
        reader = HuggingFaceStorageReader(str(path))
        try:
            there = reader.read_metadata().state_dict_metadata
            sizes = {name: tuple(entry.size) for name, entry in there.items()}  # type: ignore[union-attr]
            wanted = self._wanted(tensors, sizes, path)
            group = self._ranks.files
            load({**wanted, "step": step}, storage_reader=reader, process_group=group)
        except (
            *(OSError, SafetensorError, CheckpointException, RuntimeError),
            *(KeyError, ValueError, TypeError, AssertionError),
        ) as error:
            raise ConfigError(
                f"{path}: is damaged or no checkpoint ({_reason(error)}); remove it to go on from "
                "the one before, or use another --out folder"
            ) from error
        return int(step), frozenset(tensors) - frozenset(wanted)

    def newest(self) -> Path | None:
        """The folder of the last whole checkpoint."""
        return max(self._entries(_STEP), key=_step_of, default=None)

    def place(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def _wanted(
        self, tensors: Mapping[str, Tensor], sizes: Mapping[str, tuple[int, ...]], path: Path
    ) -> dict[str, Tensor]:
        """The tensors to load; those of the average only where the checkpoint has them."""
        wanted = {n: t for n, t in tensors.items() if n in sizes or not n.startswith("average.")}
        absent = [name for name in wanted if name not in sizes]
        unknown = [n for n in sizes if n not in wanted and not n.startswith(("average.", "step"))]
        misshapen = [
            f"{name} is {sizes[name]} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in sizes and sizes[name] != tuple(tensor.shape)
        ]
        models = [n for n in (*absent, *unknown, *misshapen) if n.startswith("model.")]
        if models:
            raise ConfigError(
                f"{path}: belongs to another model ({models[0].removeprefix('model.')}); use the "
                "settings that it was made with or another --out folder"
            )
        if absent or unknown or misshapen or "step" not in sizes:
            raise ConfigError(
                f"{path}: holds the optimiser of another stage; use another --out folder"
            )
        return wanted

    def _check_space(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse before anything is written: a full disk harms more than this run."""
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot be written ({error.strerror}); use another --out folder"
            ) from error
        if self._ranks.share(needed > free):
            raise ConfigError(
                f"{self.folder}: a checkpoint takes {needed / _GIGA:.3g} GB but the disk has "
                f"{free / _GIGA:.3g} GB left; free space, then run again to go on from the last "
                "checkpoint"
            )

    def _prune(self) -> None:
        for old in sorted(self._entries(_STEP), key=_step_of)[: -self._keep]:
            _remove(old)

    def _entries(self, pattern: re.Pattern[str]) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name)]
        except OSError:
            return []

    def _unfinished(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}.tmp"


def save_atomically(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write safetensors under a temporary name, flush to disk, then rename.

    Raises:
        ConfigError: the disk refuses; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        save_file(plain, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors writes for the owner only; a model is to be shared
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: cannot be written ({error}); free space or use another --out folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _remove(checkpoint: Path) -> None:
    """Delete the files that a checkpoint has, and the folder unless it holds something else."""
    with contextlib.suppress(OSError):
        for file in checkpoint.glob(_FILES):
            file.unlink()
        checkpoint.rmdir()


def _step_of(path: Path) -> int:
    found = _STEP.fullmatch(path.name)
    assert found is not None  # noqa: S101  (only such entries are listed)
    return int(found[1])


def _sync(folder: Path) -> None:
    """Bring a rename to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_fault(error: BaseException) -> BaseException:
    """What went wrong in the first process where something did."""
    if isinstance(error, CheckpointException) and error.failures:
        fault: BaseException = next(iter(error.failures.values()))[0]
        return fault
    return error


def _reason(error: BaseException) -> str:
    """The first line of what went wrong."""
    return str(_first_fault(error)).partition("\n")[0] or type(error).__name__
