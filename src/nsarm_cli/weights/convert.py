"""Turn published checkpoints into a model folder: renamed, cast, in safetensors shards.

```
NAME/
  config.json                          family and configuration
  model-00001-of-00005.safetensors ... or model.safetensors
  model.safetensors.index.json         which shard holds which tensor
  conversion.json                      what the folder was made from
  prompt.safetensors                   features of the fixed prompt      } models
  text_encoder/                        encoder half of T5, tokenizer     } with text
```

Tensors go from file to file in pieces, so memory holds one piece whatever the model's size;
only the fixed prompt needs the text encoder as a whole. The folder appears when it is complete;
see `staging.py` for what happens before.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.text.features import KEY
from nsarm_cli.weights import text_encoder as t5
from nsarm_cli.weights.originals import Original
from nsarm_cli.weights.recipe import Recipe
from nsarm_cli.weights.recognition import OnProgress, OpenedFiles, open_files
from nsarm_cli.weights.shards import (
    INDEX_FILE,
    PlannedTensor,
    file_size,
    index_text,
    split,
    write_shard,
)
from nsarm_cli.weights.staging import Staging, free_bytes, held_bytes, refuse_existing, staged
from nsarm_cli.weights.stored import JoinedFile, StoredTensor
from nsarm_cli.weights.strict import check_tensors
from nsarm_cli.weights.trust import Digest, Trust

SHARD_BYTES = 4 * 10**9
"""Most bytes of a shard."""

_SPARE_BYTES = 64 * 10**6


def convert(
    recipe: Recipe,
    sources: Sequence[Original],
    target: Path,
    *,
    trust: Trust,
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress = lambda _what, _share: None,
) -> None:
    """Convert a model.

    Args:
        recipe: what the model is made of.
        sources: all its published files; each is recognised by what it holds.
        target: the folder to be made.
        trust: which digests are known.
        dtype: of the tensors that a run in this type has in this type; the others, such as
            the head's, are stored in float32.
        shard_bytes: most bytes of a shard.
        on_progress: told what is being done.

    Raises:
        WeightsError: a source is missing, refused, damaged or of another model, or the folder
            exists or cannot be written.
    """
    refuse_existing(target)
    with ExitStack() as opened:
        files = open_files(recipe, sources, trust, opened, on_progress)
        plan = _plan(recipe, files, dtype, shard_bytes)
        short = plan.nbytes + _SPARE_BYTES - free_bytes(target) - held_bytes(target)
        if short > 0:
            raise WeightsError(
                f"{target}: needs {plan.nbytes / 1e9:.1f} GB and the disk is "
                f"{short / 1e9:.1f} GB short of it; make room or choose another folder"
            )
        with staged(target, _record(recipe, files, dtype, plan)) as staging:
            _write(plan, staging, on_progress)
            if recipe.prompt is not None:
                on_progress("encoding the prompt", 0.0)
                _write_prompt(recipe, staging)


@dataclass
class _Plan:
    """What will be written.

    Attributes:
        shards: tensors by the name of their file.
        texts: small files by name.
        copies: files copied as they are, by name.
    """

    shards: dict[str, list[PlannedTensor]]
    texts: dict[str, str]
    copies: dict[str, Path]

    @property
    def nbytes(self) -> int:
        """Of the shards."""
        return sum(file_size(tensors) for tensors in self.shards.values())


def _plan(recipe: Recipe, files: OpenedFiles, dtype: torch.dtype, shard_bytes: int) -> _Plan:
    layout = recipe.layout(dtype)
    stored: dict[str, StoredTensor] = {}
    for part in recipe.parts:
        checked, contents = files.parts[part.role]
        stored |= part.take(contents, checked.original.name)
    check_tensors({name: tuple(t.shape) for name, t in layout.items()}, stored, recipe.name)
    config = {"family": recipe.family, "config": recipe.config}
    plan = _Plan({}, {"config.json": json.dumps(config, indent=2) + "\n"}, {})
    _add(plan, "", layout, stored, shard_bytes)
    if files.text is not None and recipe.text_width:
        original = files.text[0].original
        folder = original.folder or original.files[0].parent
        values = t5.read_t5_config(folder, recipe.text_width)
        layout = t5.t5_layout(values, dtype)
        kept = t5.take_encoder(files.text[1], layout, original.name)
        _add(plan, f"{t5.FOLDER}/", layout, kept, shard_bytes)
        values["dtype"] = str(dtype).removeprefix("torch.")
        plan.texts[f"{t5.FOLDER}/config.json"] = json.dumps(values, indent=2) + "\n"
        for name, path in t5.find_tokenizer(folder).items():
            plan.copies[f"{t5.FOLDER}/{name}"] = path
    return plan


def _add(
    plan: _Plan,
    folder: str,
    layout: Mapping[str, Tensor],
    stored: Mapping[str, StoredTensor],
    shard_bytes: int,
) -> None:
    planned = [_planned(name, layout[name].dtype, stored[name]) for name in layout]
    shards = split(planned, shard_bytes)
    plan.shards |= {folder + name: tensors for name, tensors in shards.items()}
    if len(shards) > 1:
        plan.texts[folder + INDEX_FILE] = index_text(shards)


def _planned(name: str, dtype: torch.dtype, stored: StoredTensor) -> PlannedTensor:
    path = stored.file.paths[0]
    if not stored.dtype.is_floating_point:
        raise WeightsError(
            f"{path}: {name} has numbers of type {stored.dtype}, which weights do not have; "
            "get the file again"
        )

    def pieces() -> Iterator[Tensor]:
        for piece in stored.pieces():
            cast = piece.to(dtype)
            if not bool(cast.isfinite().all()):
                raise WeightsError(
                    f"{path}: {name} has numbers that are not finite; get the file again"
                )
            yield cast

    return PlannedTensor(name, dtype, stored.shape, pieces)


def _record(recipe: Recipe, files: OpenedFiles, dtype: torch.dtype, plan: _Plan) -> dict[str, Any]:
    """What the folder is made from: the same record means the same bytes."""
    return {
        "model": recipe.name,
        "dtype": str(dtype).removeprefix("torch."),
        "prompt": recipe.prompt,
        "sources": [
            {
                "files": [path.name for path in file.paths],
                "bytes": file.size,
                **_identity(file, digests),
            }
            for checked in files.all()
            for file, digests in zip(checked.files, checked.digests, strict=True)
        ],
        "files": {name: file_size(tensors) for name, tensors in plan.shards.items()},
    }


def _identity(file: JoinedFile, digests: Sequence[Digest]) -> dict[str, Any]:
    """Digests, or where none was taken the time of the last change."""
    if not digests:
        return {"changed_ns": max(path.stat().st_mtime_ns for path in file.paths)}
    return {digest.algorithm: digest.value for digest in digests}


def _write(plan: _Plan, staging: Staging, on_progress: OnProgress) -> None:
    done, total = 0, plan.nbytes

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress("writing", done / total)

    for name, tensors in plan.shards.items():
        size = file_size(tensors)
        if staging.holds(name, size):
            on_bytes(size)
            continue

        def write(path: Path, tensors: Sequence[PlannedTensor] = tensors) -> None:
            write_shard(path, tensors, on_bytes)

        staging.write(name, write)
    for name, source in plan.copies.items():

        def copy(path: Path, source: Path = source) -> None:
            t5.copy_to(source, path)

        staging.write(name, copy)
    for name, text in plan.texts.items():
        staging.write_text(name, text)


def _write_prompt(recipe: Recipe, staging: Staging) -> None:
    """Encode the fixed prompt with the weights as they were just written, in float32."""
    name = "prompt.safetensors"
    if staging.holds(name):
        return
    folder = staging.folder / t5.FOLDER
    encoder = TextEncoder.load(folder, torch.device("cpu"), torch.float32)
    features = encoder.encode([recipe.prompt or ""])[0]
    metadata = {"prompt": recipe.prompt or ""}
    staging.write(name, lambda path: save_file({KEY: features}, path, metadata=metadata))
