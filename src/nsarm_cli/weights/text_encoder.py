"""Reduce a published T5 to its encoder half, as a folder that transformers reads.

The decoder is half of the file and more, and nothing here uses it.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.stored import StoredTensor
from nsarm_cli.weights.strict import check_tensors

FOLDER = "text_encoder"
"""In a model's folder."""

LANDMARK = "encoder.final_layer_norm.weight"
"""A name that the published file of a T5 has, and no other file of a model."""

_KEPT = ("shared.", "encoder.")
_LEFT_OUT = ("decoder.", "lm_head.")
_SAME_AS_SHARED = "encoder.embed_tokens.weight"
_IN_FLOAT32 = (".wo.weight", "final_layer_norm.weight")
"""What these add to or do with the residual stream is large; they run in float32."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Those of them that there are; the first there must be."""


def read_t5_config(folder: Path, width: int) -> dict[str, Any]:
    """Read the configuration of a published T5, as that of its encoder half.

    Args:
        folder: with `config.json`.
        width: of the features that the model takes.

    Raises:
        WeightsError: the file is missing or damaged, or of another model.
    """
    path = folder / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, found = values["model_type"], values["d_model"]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise WeightsError(
            f"{path}: is not the configuration of a T5 ({error}); get the file again"
        ) from error
    if kind != "t5" or found != width:
        raise WeightsError(
            f"{path}: is of a {kind} of width {found}, but the model needs a t5 of width {width}; "
            "give the text encoder that the model was made with"
        )
    for key in ("torch_dtype", "dtype", "_name_or_path"):
        values.pop(key, None)
    return values | {"architectures": ["T5EncoderModel"], "is_encoder_decoder": False}


def t5_layout(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The encoder's tensors without memory, in the types in which they are stored.

    Raises:
        WeightsError: the configuration describes no T5.
    """
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers import T5Config, T5EncoderModel  # noqa: PLC0415  (takes a second)

    try:
        with torch.device("meta"):
            module = T5EncoderModel(T5Config(**config))
    except (
        StrictDataclassError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise WeightsError(
            f"config.json of the text encoder describes no T5 ({error}); get the file again"
        ) from error
    return {
        name: tensor.to(torch.float32 if name.endswith(_IN_FLOAT32) else dtype)
        for name, tensor in module.state_dict().items()
        if name != _SAME_AS_SHARED
    }


def take_encoder(
    contents: Mapping[str, Any], layout: Mapping[str, Tensor], source: str
) -> dict[str, StoredTensor]:
    """The encoder's tensors of a whole T5.

    Raises:
        WeightsError: names unknown, missing and misshapen tensors.
    """
    kept = {
        name: value
        for name, value in contents.items()
        if not name.startswith(_LEFT_OUT) and name != _SAME_AS_SHARED
    }
    check_tensors({name: tuple(t.shape) for name, t in layout.items()}, kept, source)
    return kept


def find_tokenizer(folder: Path) -> dict[str, Path]:
    """The files of a fast tokenizer: in the text encoder's folder, or `tokenizer` beside it.

    Raises:
        WeightsError: there is no `tokenizer.json`.
    """
    places = (folder, folder.parent / "tokenizer")
    for place in places:
        if (place / TOKENIZER_FILES[0]).is_file():
            return {name: place / name for name in TOKENIZER_FILES if (place / name).is_file()}
    raise WeightsError(
        f"{folder}: has no {TOKENIZER_FILES[0]}, nor has {places[1]}; get the tokenizer's files too"
    )


def copy_to(source: Path, path: Path) -> None:
    """Copy a small file's contents."""
    shutil.copyfile(source, path)
