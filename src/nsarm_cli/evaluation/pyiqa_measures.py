"""Measures that pyiqa computes: CLIPIQA, MUSIQ, MANIQA, TOPIQ and FID.

pyiqa is an extra that is never needed: its licence (PolyForm Noncommercial) and its dependencies
(torchvision, timm) are others than ours. Nothing is downloaded here: the weights must lie where
pyiqa looks for them, and a measure that lacks a file is left out by name.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image

from nsarm_cli.errors import WeightsError
from nsarm_cli.evaluation.measures import NOTHING, Batch, Measure, Missing
from nsarm_cli.evaluation.methods import Method
from nsarm_cli.evaluation.pictures import PictureSet, read_pair
from nsarm_cli.evaluation.protocol import Protocol
from nsarm_cli.evaluation.runner import judged_picture

FID_LEAST = 50
"""Fewer pictures give a FID that says nothing; published ones are of 93 and 100."""

_VIT = "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"
_WEIGHTS = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights"


@dataclass(frozen=True)
class File:
    """A file that a measure needs.

    Attributes:
        name: below the cache of torch.hub, or in a repository of the Hugging Face Hub.
        source: address or repository.
        sha256: of the file where it holds code; others are read as tensors only.
        is_hub: whether it belongs into the cache of the Hugging Face Hub.
    """

    name: str
    source: str
    sha256: str | None = None
    is_hub: bool = False


@dataclass(frozen=True)
class Extra:
    """A measure of pyiqa.

    Attributes:
        name: ours, as the paper's score calls it.
        metric: pyiqa's name of the variant.
        title: in tables.
        decimals: that tables show.
        variant: for the report.
        files: that it loads.
        least: side of a picture that it works from.
    """

    name: str
    metric: str
    title: str
    decimals: int
    variant: str
    files: tuple[File, ...]
    least: int = 32


# The variants of NSARM's paper. CLIP's file is a program (TorchScript), so its digest is checked;
# it is the one that OpenAI's own loader checks.
EXTRAS = (
    Extra(
        "clipiqa", "clipiqa", "CLIPIQA", 4, "CLIP RN50, the prompts of its authors",
        (
            File(
                "clip/RN50.pt",
                "https://openaipublic.azureedge.net/clip/models/"
                "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
                "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
            ),
        ),
    ),
    Extra(
        "musiq", "musiq", "MUSIQ", 2, "trained on KonIQ-10k",
        (File("pyiqa/musiq_koniq_ckpt-e95806b9.pth", _WEIGHTS),),
    ),
    Extra(
        "maniqa", "maniqa-pipal", "MANIQA", 4, "trained on PIPAL",
        (
            File("pyiqa/MANIQA_PIPAL-ae6d356b.pth", _WEIGHTS),
            File("model.safetensors", _VIT, is_hub=True),
        ),
        least=224,
    ),
    Extra(
        "topiq", "topiq_nr", "TOPIQ", 4, "without reference, ResNet-50 trained on KonIQ-10k",
        (
            File("pyiqa/cfanet_nr_koniq_res50-9a73138b.pth", _WEIGHTS),
            File("model.safetensors", "timm/resnet50.a1_in1k", is_hub=True),
        ),
    ),
)  # fmt: skip

FID = Extra(
    "fid", "fid", "FID", 2, f"clean-fid, Inception V3; sets of {FID_LEAST} pictures or more",
    (File("pyiqa/pt_inception-2015-12-05-6726825d.pth", _WEIGHTS),),
)  # fmt: skip

Fid = Callable[[Sequence[Image.Image], Sequence[Image.Image]], float]
"""Distance of outputs from references."""


def pyiqa_measures(device: torch.device) -> tuple[list[Measure], list[Missing]]:
    """Load what can be loaded.

    Returns:
        The measures that work, and why the others do not.
    """
    loaded: list[Measure] = []
    missing: list[Missing] = []
    for extra in EXTRAS:
        try:
            loaded.append(_measure(extra, device))
        except WeightsError as error:
            missing.append(Missing(extra.name, str(error)))
    return loaded, missing


def load_fid(device: torch.device) -> Fid:
    """Load FID.

    Raises:
        WeightsError: pyiqa or the file of Inception is missing.
    """
    metric = _load(FID, device)

    def distance(outputs: Sequence[Image.Image], references: Sequence[Image.Image]) -> float:
        with tempfile.TemporaryDirectory(prefix="nsarm-fid-") as folder:
            folders = []
            for name, pictures in (("outputs", outputs), ("references", references)):
                folders.append(Path(folder, name))
                folders[-1].mkdir()
                for number, picture in enumerate(pictures):
                    picture.save(folders[-1] / f"{number:05d}.png")
            value = metric(*map(str, folders), mode="clean", num_workers=0, verbose=False)
        return float(value)

    return distance


def _measure(extra: Extra, device: torch.device) -> Measure:
    metric = _load(extra, device)

    def compute(batch: Batch) -> list[float | None]:
        with torch.inference_mode():
            values = metric(batch.sr.to(device).float() / 255).flatten().tolist()
        return [value if math.isfinite(value) else None for value in values]

    return Measure(
        name=extra.name,
        title=extra.title,
        is_higher_better=True,
        decimals=extra.decimals,
        needs=NOTHING,
        variant=f"{extra.variant}; {extra.metric} of pyiqa {_version()}",
        version=f"{extra.metric} {_version()}",
        fits=lambda height, width: min(height, width) >= extra.least,
        compute=compute,
    )


def _load(extra: Extra, device: torch.device) -> Any:
    try:
        pyiqa = import_module("pyiqa")
    except ImportError as error:
        missing = "pyiqa" if error.name in {"pyiqa", None} else f"pyiqa's dependency {error.name}"
        raise WeightsError(
            f"{missing} is not installed; run: pip install 'nsarm[metrics]' (its licence is "
            "PolyForm Noncommercial)"
        ) from error
    for file in extra.files:
        _check(extra, file)
    try:
        with _tensors_only():
            return pyiqa.create_metric(extra.metric, device=device)
    except Exception as error:  # whatever a package of others raises is a reason to leave it out
        reason = next(iter(str(error).splitlines()), "")
        raise WeightsError(
            f"{extra.title} cannot be loaded by pyiqa {_version()} ({type(error).__name__}: "
            f"{reason}); get {extra.files[0].name} again from {extra.files[0].source}"
        ) from error


def _check(extra: Extra, file: File) -> None:
    """Find a file where pyiqa will, so that it downloads nothing."""
    if file.is_hub:
        if not isinstance(try_to_load_from_cache(file.source, file.name), str):
            raise WeightsError(
                f"{extra.title} needs {file.name} of {file.source} in the cache of the Hugging "
                f"Face Hub; run: hf download {file.source} {file.name}"
            )
        return
    root = Path(torch.hub.get_dir())
    path = root / file.name
    if not path.is_file():
        raise WeightsError(
            f"{extra.title} needs {path}, which is missing; get it from {file.source} and put it "
            "there"
        )
    if file.sha256 is not None:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            raise WeightsError(
                f"{path}: is not the published file (its SHA-256 begins with {digest[:8]}, not "
                f"{file.sha256[:8]}); get it again from {file.source}"
            )


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Make torch.load read nothing but tensors, whatever its caller asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _version() -> str:
    try:
        return version("pyiqa")
    except PackageNotFoundError:
        return "of unknown version"


def fid_of_set(
    picture_set: PictureSet, methods: Sequence[Method], protocol: Protocol, fid: Fid
) -> dict[str, dict[str, float]]:
    """Compute FID between each method's outputs and the references of a set.

    Returns:
        Method -> {"fid": value}; empty for sets without references or of too few pictures.
    """
    if not picture_set.has_references or len(picture_set.items) < FID_LEAST:
        return {}
    pairs = [(item, *read_pair(item)) for item in picture_set.items]
    references = [gt for _, _, gt in pairs if gt is not None]
    found = {}
    for method in methods:
        outputs = [judged_picture(item, method, protocol, lr, gt) for item, lr, gt in pairs]
        found[method.name] = {"fid": fid(outputs, references)}
    return found
