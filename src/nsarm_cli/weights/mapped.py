"""Networks that run once per window give their memory back after each run.

Weights that are stored in the type of the run stay in the mapped file, and the system brings a page
of it into memory when it is read. Nothing takes it away while there is room, so in the end all
weights count as this process's. Here the pages of a network go when it has run; the next run brings
them back from the system's own cache of files, which it empties when others need the room.
"""

import mmap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nsarm_cli.weights.shards import stored_tensors
from nsarm_cli.weights.stored import JoinedFile, StoredTensor

WORTHWHILE = 64 * 2**20
"""Bytes of a network from which on it is done; small ones are quicker without."""

_DROP: int | None = getattr(mmap, "MADV_DONTNEED", None)
"""What tells the system; Windows has nothing like it."""


def leave_after_use(
    networks: Mapping[str, nn.Module], files: Sequence[Path], worthwhile: int = WORTHWHILE
) -> list[str]:
    """Let networks leave memory after each run, where their weights can stay in their files.

    That is on a processor, for a network all of whose tensors are stored in the type that it has.
    Its parameters become views of the files, so nothing may write to them.

    Args:
        networks: of a model in inference mode, each run through its `forward`, by the beginning of
            their tensors' names in the files.
        files: safetensors of the model.
        worthwhile: fewest bytes of a network.

    Returns:
        The names of those that leave.

    Raises:
        WeightsError: a file is damaged.
        OSError: a file cannot be read.
    """
    if _DROP is None:
        return []
    stored: dict[str, StoredTensor] = {}
    for path in files:
        with JoinedFile([path]) as file:
            stored |= stored_tensors(file)
    maps: dict[Path, mmap.mmap] = {}
    leaving = []
    for name, network in networks.items():
        tensors = network.state_dict()
        places = {key: stored.get(f"{name}.{key}") for key in tensors}
        if sum(tensor.nbytes for tensor in tensors.values()) < worthwhile or not all(
            _is_there(tensor, places[key]) for key, tensor in tensors.items()
        ):
            continue
        views = {key: _view(place, maps) for key, place in places.items() if place is not None}
        network.load_state_dict(views, strict=True, assign=True)
        ours = {place.file.paths[0] for place in places.values() if place is not None}
        hook = _dropping(maps[path] for path in ours)
        network.register_forward_hook(hook, always_call=True)
        leaving.append(name)
    return leaving


def _is_there(tensor: Tensor, place: StoredTensor | None) -> bool:
    """Whether a tensor is on the processor as the file has it."""
    if place is None or tensor.dtype != place.dtype or tuple(tensor.shape) != place.shape:
        return False
    return tensor.device.type == "cpu" and tensor.numel() > 0


def _view(place: StoredTensor, maps: dict[Path, mmap.mmap]) -> Tensor:
    """A tensor of a file, which is mapped when the first is wanted."""
    path = place.file.paths[0]
    if path not in maps:
        with path.open("rb") as file:
            maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with torch.inference_mode(mode=False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(
            maps[path], dtype=place.dtype, count=place.numel, offset=place.offset
        )
    return flat.view(place.shape)


def _dropping(maps: Iterable[mmap.mmap]) -> Callable[..., None]:
    """A hook that lets all pages of some files go: only networks that leave read them here."""
    assert _DROP is not None  # noqa: S101  (checked by the caller)
    files = list(maps)
    advice = _DROP

    def drop(*_: object) -> None:
        for mapped in files:
            mapped.madvise(advice)

    return drop
