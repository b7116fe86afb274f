"""What a user has fetched: which of the files belong together as one checkpoint."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.shards import INDEX_FILE, shard_files
from nsarm_cli.weights.splits import natural_key

_PART = re.compile(r"(.+)_part_?[0-9A-Za-z]+")
_PICKLES = (".pth", ".pt", ".ckpt", ".bin")


@dataclass(frozen=True)
class Original:
    """One checkpoint on disk.

    Attributes:
        name: for messages: the file, the folder, or the first part and how many there are.
        files: in order: of a pickle its parts, of safetensors its shards.
        pickled: whether it is a pickle (one, in any number of parts) or safetensors.
        folder: where the checkpoint lies when it is a Hugging Face folder, else None.
    """

    name: str
    files: tuple[Path, ...]
    pickled: bool
    folder: Path | None = None


def find_originals(paths: Iterable[Path]) -> list[Original]:
    """Group files into checkpoints.

    Args:
        paths: single files (.pth, .safetensors), parts of one file (`NAME_part_aa` ... in any
            order), Hugging Face folders, or folders that hold such files.

    Raises:
        WeightsError: a path is missing, of an unknown kind, or a folder without checkpoints.
    """
    sources: list[Original] = []
    parts: dict[Path, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            sources += _in_folder(path)
        elif not path.is_file():
            raise WeightsError(f"{path}: does not exist; check the name, or download it")
        elif found := _PART.fullmatch(path.name):
            parts.setdefault(path.with_name(found[1]), []).append(path)
        else:
            sources.append(_single(path))
    return sources + [_joined(files) for files in parts.values()]


def _in_folder(folder: Path) -> list[Original]:
    indexed = (folder / INDEX_FILE).exists()
    shards = shard_files(folder) if indexed else tuple(sorted(folder.glob("*.safetensors")))
    if shards:
        return [Original(str(folder), shards, pickled=False, folder=folder)]
    inside = [path for path in sorted(folder.iterdir()) if path.is_file()]
    wanted = [p for p in inside if p.suffix in _PICKLES or _PART.fullmatch(p.name)]
    if not wanted:
        raise WeightsError(
            f"{folder}: holds no .safetensors, no .pth and no parts of one; "
            "give the folder or the files of a checkpoint"
        )
    return find_originals(wanted)


def _single(path: Path) -> Original:
    if path.suffix == ".safetensors":
        return Original(str(path), (path,), pickled=False)
    if path.suffix in _PICKLES:
        return Original(str(path), (path,), pickled=True)
    raise WeightsError(
        f"{path}: is no checkpoint by its name; give .pth, .safetensors, NAME_part_* or a folder"
    )


def _joined(files: Sequence[Path]) -> Original:
    files = sorted(files, key=lambda path: natural_key(path.name))
    name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more parts"
    return Original(name, tuple(files), pickled=True)
