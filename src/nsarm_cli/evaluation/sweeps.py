"""Degradation sweeps: the same inputs under growing damage, and how the methods' scores fall.

Strength 0 is the set itself. Damage is added to the inputs, whose sizes stay as they are:

* blur: a Gaussian; the strength is its standard deviation in pixels of the input.
* noise: Gaussian on each channel; its standard deviation in levels of 255.
* jpeg: compression; 100 less the quality.
* downscale: reduced and enlarged again by Pillow's bicubic; the strength is the factor less 1.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.degradation.jpeg import jpeg_round_trip
from nsarm_cli.degradation.kernels import anisotropic_kernel, filter2d
from nsarm_cli.degradation.noise import gaussian_noise
from nsarm_cli.errors import ConfigError
from nsarm_cli.evaluation import kept
from nsarm_cli.evaluation.pictures import PictureSet
from nsarm_cli.evaluation.robustness import Row, Score
from nsarm_cli.imaging.files import read_image
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.runtime import window_generator

_KERNEL = 21  # as the largest of Real-ESRGAN; holds four standard deviations of 2.5


@dataclass(frozen=True)
class Sweep:
    """One kind of damage.

    Attributes:
        name: in options and folders.
        unit: of the strength, for axes.
        strengths: growing, all above 0.
        apply: damages an RGB picture; noise draws from the generator.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Image.Image, float, torch.Generator], Image.Image]


@dataclass(frozen=True)
class SweepResult:
    """The mean scores of all methods under one kind of damage.

    Attributes:
        set: name of the set.
        sweep: the kind.
        score: what was averaged.
        strengths: from 0.
        curves: method -> mean score at each strength, None where no picture has one.
        measures: method -> measure -> mean at each strength.
    """

    set: str
    sweep: Sweep
    score: Score
    strengths: tuple[float, ...]
    curves: dict[str, list[float | None]]
    measures: dict[str, dict[str, list[float | None]]]


def _on_unit_range(
    work: Callable[[Tensor], Tensor],
) -> Callable[[Image.Image], Image.Image]:
    def apply(picture: Image.Image) -> Image.Image:
        x = to_tensor(picture).mul(0.5).add(0.5)
        return to_image(work(x).clamp(0, 1).mul(2).sub(1))

    return apply


def _blur(picture: Image.Image, strength: float, _: torch.Generator) -> Image.Image:
    kernel = anisotropic_kernel(_KERNEL, (strength, strength))
    return _on_unit_range(lambda x: filter2d(x, kernel))(picture)


def _noise(picture: Image.Image, strength: float, rng: torch.Generator) -> Image.Image:
    return _on_unit_range(lambda x: x + gaussian_noise(x.shape, strength, False, rng))(picture)


def _jpeg(picture: Image.Image, strength: float, _: torch.Generator) -> Image.Image:
    return _on_unit_range(lambda x: jpeg_round_trip(x, 100 - strength))(picture)


def _downscale(picture: Image.Image, strength: float, _: torch.Generator) -> Image.Image:
    small = [max(1, round(side / (1 + strength))) for side in picture.size]
    bicubic = Image.Resampling.BICUBIC
    return picture.resize((small[0], small[1]), bicubic).resize(picture.size, bicubic)


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep("blur", "standard deviation in pixels", (0.5, 1.0, 1.5, 2.0), _blur),
        Sweep("noise", "standard deviation in levels of 255", (5.0, 10.0, 20.0, 30.0), _noise),
        Sweep("jpeg", "100 less the JPEG quality", (20.0, 40.0, 60.0, 80.0), _jpeg),
        Sweep("downscale", "factor of the reduction less 1", (0.5, 1.0, 2.0, 3.0), _downscale),
    )
}


def choose_sweeps(text: str) -> list[Sweep]:
    """Read names with commas between, or "all".

    Raises:
        ConfigError: a name is unknown.
    """
    names = list(SWEEPS) if text == "all" else [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in SWEEPS]:
        raise ConfigError(f"sweep {unknown[0]!r} is unknown: choose all, or {', '.join(SWEEPS)}")
    return [SWEEPS[name] for name in dict.fromkeys(names)]


def damaged(picture_set: PictureSet, sweep: Sweep, strength: float, folder: Path) -> PictureSet:
    """Write the inputs of a set under damage, but those that are there from the same pictures.

    Every picture has the same damage whatever the others are: its noise is drawn from its name.

    Args:
        picture_set: whose references and captions stay.
        sweep: the kind.
        strength: above 0.
        folder: gets a folder of the new set's name.

    Returns:
        The set of the new inputs, named "SET-KIND-STRENGTH".

    Raises:
        ImageError: a picture cannot be read or written.
    """
    name = f"{picture_set.name}-{sweep.name}-{strength:g}"
    items = []
    kept.make_folder(folder / name)
    for item in picture_set.items:
        path, source = folder / name / f"{item.name}.png", read_image(item.lr)
        origin = {**kept.origin_of(source), sweep.name: strength}
        if not kept.is_kept(path, origin):
            kept.keep(sweep.apply(source, strength, _generator(item.name)), path, origin)
        items.append(replace(item, lr=path))
    described = f"{picture_set.source}, inputs with {sweep.name} of {strength:g} ({sweep.unit})"
    return PictureSet(name, tuple(items), described)


def _generator(name: str) -> torch.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return window_generator(0, int.from_bytes(digest[:8], "big"))


def summarise_sweep(
    name: str,
    sweep: Sweep,
    score: Score,
    rows: Sequence[Mapping[str, Mapping[str, Row]]],
) -> SweepResult:
    """Average what was measured at each strength.

    Args:
        name: of the set.
        sweep: the kind.
        score: to average.
        rows: method -> picture -> values; of strength 0 and then each strength of the sweep.
            A method that lacks outputs at one strength has none there.
    """
    methods = list(dict.fromkeys(method for at in rows for method in at))
    names = list(
        dict.fromkeys(n for at in rows for of in at.values() for row in of.values() for n in row)
    )
    return SweepResult(
        set=name,
        sweep=sweep,
        score=score,
        strengths=(0.0, *sweep.strengths),
        curves={m: [_mean([score.of(row) for row in _of(at, m)]) for at in rows] for m in methods},
        measures={
            m: {n: [_mean([r.get(n) for r in _of(at, m)]) for at in rows] for n in names}
            for m in methods
        },
    )


def _of(rows: Mapping[str, Mapping[str, Row]], method: str) -> Sequence[Row]:
    return list(rows.get(method, {}).values())


def as_document(result: SweepResult) -> dict[str, Any]:
    """Turn a sweep into what results.json and the report hold."""
    return {
        "set": result.set,
        "kind": result.sweep.name,
        "unit": result.sweep.unit,
        "score": result.score.title,
        "strengths": list(result.strengths),
        "score_means": result.curves,
        "measure_means": result.measures,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
