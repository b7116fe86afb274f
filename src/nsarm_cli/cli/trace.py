"""The file of `--trace`: the tensors of one window, written whole or not at all."""

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor


def check_trace(path: Path, others: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse, before any work, a trace that must not or cannot be written.

    Makes the folder if it is missing.

    Args:
        path: the trace.
        others: inputs and outputs of the run, which a trace never replaces.
        overwrite: an existing file may be replaced.

    Raises:
        ImageError: a folder, one of `others`, exists already, or its folder refuses.
    """
    if path.is_dir():
        raise ImageError(f"{path}: is a folder; give --trace the name of a file")
    # Not samefile alone: an output that does not exist yet would be missed.
    if any(path.resolve() == other.resolve() for other in others):
        raise ImageError(f"{path}: is also a picture of this run; give --trace another name")
    if path.exists() and not overwrite:
        raise _exists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_trace(
    tensors: "Mapping[str, Tensor]", path: Path, facts: Mapping[str, object], *, overwrite: bool
) -> None:
    """Write a trace as safetensors.

    Args:
        tensors: by name, on any device.
        path: checked by `check_trace`.
        facts: how the tensors came about; kept as text in the file's metadata.
        overwrite: an existing file may be replaced.

    Raises:
        ImageError: a file of this name appeared meanwhile, or the disk refuses.
    """
    from safetensors.torch import save

    data = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {key: str(value) for key, value in facts.items()},
    )
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and not overwrite:
            raise _exists(path)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".nsarm-{secrets.token_hex(8)}.tmp")


def _exists(path: Path) -> ImageError:
    return ImageError(f"{path}: exists already; pass --overwrite or give --trace another name")


def _unwritable(path: Path, error: OSError) -> ImageError:
    reason = error.strerror or error
    return ImageError(f"{path}: cannot be written ({reason}); give --trace another folder")
