"""The published files of VARSR, by the names and shapes in them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.published_varsr import model_to_upstream, tokenizer_to_upstream
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.varsr.config import VARSR, VARSR_CLASSES
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.weights.strict import check_names_and_shapes
from nsarm_cli.weights.varsr_keymap import (
    COMPUTED,
    model_from_upstream,
    tokenizer_from_upstream,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "varsr"


def numbers(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Tensor]]:
    with gzip.open(GOLDENS / "published_names.json.gz") as file:
        files = json.load(file)
    return {
        name: {key: torch.empty(shape, device="meta") for key, (shape, *_) in entries.items()}
        for name, entries in files.items()
    }


def test_the_published_files_hold_exactly_the_model_of_the_paper(published):
    tokenizer = tokenizer_from_upstream(published["vqvae"], VARSR, "VQVAE.pth")
    others = model_from_upstream(published["varsr"], VARSR, "VARSR.pth")
    with torch.device("meta"):
        model = VarsrModel(VARSR)
    check_names_and_shapes(model, tokenizer | others, "both")
    assert numbers(others) == 1_101_916_448
    assert numbers(tokenizer) == 108_948_355


def test_the_published_model_of_classes_fits(published):
    """Recorded with the ten scales of the other model."""
    ten = replace(
        VARSR_CLASSES, sides=VARSR.sides, transformer=replace(VARSR_CLASSES.transformer, scales=10)
    )
    tensors = model_from_upstream(published["c2i"], ten, "VARSR_C2I.pth")
    assert numbers(tensors) == 1_073_290_368
    assert tensors["labels.weight"].shape == (3831, 1536)


@pytest.mark.parametrize(
    ("part", "there", "back"),
    [
        ("vqvae", tokenizer_from_upstream, tokenizer_to_upstream),
        ("varsr", model_from_upstream, model_to_upstream),
    ],
)
def test_renaming_there_and_back_gives_the_published_names(part, there, back, published):
    theirs = published[part]
    again = back(there(theirs, VARSR, part), VARSR, part)
    learned = {name: t.shape for name, t in theirs.items() if name not in COMPUTED}
    assert {name: t.shape for name, t in again.items()} == learned


def test_a_tensor_too_many_and_one_too_few_are_named(published):
    theirs = dict(published["varsr"])
    theirs["controlnet_depth"] = theirs.pop("head.bias")
    with pytest.raises(WeightsError, match=r"missing: head\.bias; unknown: controlnet_depth"):
        model_from_upstream(theirs, VARSR, "VARSR.pth")
