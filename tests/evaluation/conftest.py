"""Pictures with known damage, made from two free photographs by whole-number arithmetic."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.evaluation import weights

PHOTOS = Path(__file__).parents[1] / "goldens" / "photos"


def _photo(name: str) -> np.ndarray:
    with Image.open(PHOTOS / f"{name}_256.png") as picture:
        return np.asarray(picture.convert("RGB"))


def _pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (output, reference), uint8, "h w 3"."""
    photo = _photo("astronaut")
    flat = photo.copy()
    flat[:100, :100], flat[150:] = 255, 0
    wide = np.concatenate([photo, _photo("coffee")], 1)[:200]
    shifted = [
        np.roll(photo, shift, (0, 1)).astype(int) for shift in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    return {
        "same": (photo, photo),
        "blur": ((sum(shifted) // 4).astype(np.uint8), photo),
        "dark": (photo // 16, photo // 15),
        "flat": (flat, photo),
        "wide": (np.roll(wide, 1, 1), wide),
    }


@pytest.fixture(scope="session")
def damaged() -> Callable[[str], tuple[torch.Tensor, torch.Tensor]]:
    """Give an output and its reference, each "1 3 h w", uint8."""
    pairs = _pairs()

    def tensor(picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]

    return lambda name: tuple(tensor(picture) for picture in pairs[name])


@pytest.fixture
def publish(monkeypatch) -> Callable[[str, Path, Path], None]:
    """Put a file where a measure's weights belong, as if it were the published one."""

    def put(name: str, source: Path, folder: Path) -> None:
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entry = replace(weights.WEIGHTS[name], sha256=digest)
        monkeypatch.setitem(weights.WEIGHTS, name, entry)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / entry.file).write_bytes(content)

    return put
