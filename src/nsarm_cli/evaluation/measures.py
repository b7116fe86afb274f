"""The measures by name: what each needs, which way it points, and how exactly it is defined.

A value is None where a picture is too small or too flat for the measure; it is never made up.
Letters: b batch, h w height and width in pixels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.evaluation import fidelity
from nsarm_cli.evaluation.niqe import has_enough_blocks, niqe
from nsarm_cli.evaluation.weights import WEIGHTS, find_weights
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.perceptual.lpips import PerceptualDistance

Values = list[float | None]


@dataclass(frozen=True)
class Batch:
    """Pictures of one size, uint8.

    Attributes:
        sr: outputs as they are judged, "b 3 h w".
        gt: references of the same size, or None.
        lr: inputs, "b 3 h' w'", or None.
    """

    sr: Tensor
    gt: Tensor | None = None
    lr: Tensor | None = None


@dataclass(frozen=True)
class Measure:
    """One measure of a picture.

    Attributes:
        name: in files and options.
        title: in tables.
        is_higher_better: which way it points.
        decimals: that tables show.
        needs: "gt", "lr", both, or nothing.
        variant: its exact definition, for the report.
        version: changes whenever the values do, since results are kept between runs.
        fits: whether a picture of a height and width is large enough.
        compute: gives a value for each picture of a batch.
    """

    name: str
    title: str
    is_higher_better: bool
    decimals: int
    needs: frozenset[str]
    variant: str
    version: str
    fits: Callable[[int, int], bool]
    compute: Callable[[Batch], Values]


@dataclass(frozen=True)
class Missing:
    """A measure that cannot be computed here.

    Attributes:
        name: of the measure.
        reason: what is missing, and what to do, in one sentence.
    """

    name: str
    reason: str


GT, LR, NOTHING = frozenset({"gt"}), frozenset({"lr"}), frozenset[str]()


def own_measures() -> list[Measure]:
    """Give the measures that always work: they carry all their numbers."""
    return [
        Measure(
            name="psnr_y",
            title="PSNR-Y",
            is_higher_better=True,
            decimals=2,
            needs=GT,
            variant="dB, BT.601 luma of studio range, whole frame, 1e-8 added to the error",
            version="1",
            fits=_any_size,
            compute=lambda batch: _values(fidelity.psnr_y(batch.sr, _given(batch.gt))),
        ),
        Measure(
            name="ssim_y",
            title="SSIM-Y",
            is_higher_better=True,
            decimals=4,
            needs=GT,
            variant="BT.601 luma rounded to 8 bits, Gaussian window of 11 pixels, whole frame",
            version="1",
            fits=_sides_of(fidelity.SSIM_WINDOW),
            compute=lambda batch: _values(fidelity.ssim_y(batch.sr, _given(batch.gt))),
        ),
        Measure(
            name="niqe",
            title="NIQE",
            is_higher_better=False,
            decimals=2,
            needs=NOTHING,
            variant="blocks of 96 pixels, the authors' model of undistorted photographs",
            version="2",
            fits=has_enough_blocks,
            compute=lambda batch: [_finite(niqe(picture)) for picture in batch.sr],
        ),
        Measure(
            name="lr_psnr",
            title="LR-PSNR",
            is_higher_better=True,
            decimals=2,
            needs=LR,
            variant="dB over RGB between the output reduced by MATLAB's bicubic and the input",
            version="1",
            fits=_any_size,
            compute=lambda batch: _values(fidelity.lr_psnr(batch.sr, _given(batch.lr))),
        ),
        Measure(
            name="color_shift",
            title="Colour shift",
            is_higher_better=False,
            decimals=2,
            needs=LR,
            variant="largest change of a channel's mean against the input, in levels of 255",
            version="1",
            fits=_any_size,
            compute=lambda batch: _values(fidelity.color_shift(batch.sr, _given(batch.lr))),
        ),
    ]


def learned_measures(
    names: Iterable[str], folder: Path, device: torch.device
) -> tuple[list[Measure], list[Missing]]:
    """Load LPIPS and DISTS where their weights are.

    Args:
        names: of "lpips" and "dists".
        folder: of the weights; see `weights.find_weights`.
        device: where they run.

    Returns:
        The measures that work, and those that do not.
    """
    loaded: list[Measure] = []
    missing: list[Missing] = []
    for name in names:
        try:
            loaded.append(_learned(name, find_weights(name, folder), device))
        except WeightsError as error:
            missing.append(Missing(name, str(error)))
    return loaded, missing


def _learned(name: str, path: Path, device: torch.device) -> Measure:
    network: PerceptualDistance | Dists
    if name == "lpips":
        network = PerceptualDistance.from_file(path)
        title, variant = "LPIPS", "version 0.1, AlexNet, over RGB"
        least = 32  # AlexNet's strides leave nothing of less
    else:
        network = Dists.from_file(path)
        title, variant = "DISTS", "VGG16, over RGB at full size"
        least = 16
    network = network.to(device).eval()
    return Measure(
        name=name,
        title=title,
        is_higher_better=False,
        decimals=4,
        needs=GT,
        variant=variant,
        version=f"1 {WEIGHTS[name].sha256}",
        fits=_sides_of(least),
        compute=_Distances(network, device),
    )


class _Distances:
    """Distances from references, whose features are kept until another reference comes."""

    def __init__(self, network: PerceptualDistance | Dists, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._gt: Tensor | None = None
        self._wanted: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Values:
        gt = _given(batch.gt)
        if self._gt is not gt:
            self._wanted = []  # before others are made: both would take twice the memory
            self._wanted, self._gt = self._features(gt), gt
        return _values(self._network.between(self._features(batch.sr), self._wanted))

    def _features(self, pictures: Tensor) -> list[Tensor]:
        return self._network.features(pictures.to(self._device).float() / 127.5 - 1)


def choose(
    available: Sequence[Measure], missing: Sequence[Missing], asked: Sequence[str] | None
) -> list[Measure]:
    """Pick the measures that were asked for, in the order asked; all by default.

    Raises:
        ConfigError: a name is unknown.
        WeightsError: a measure that was asked for cannot be computed.
    """
    if asked is None:
        return list(available)
    known = {measure.name: measure for measure in available}
    reasons = {entry.name: entry.reason for entry in missing}
    for name in asked:
        if name in reasons:
            raise WeightsError(f"measure {name} cannot be computed: {reasons[name]}")
        if name not in known:
            raise ConfigError(
                f"measure {name!r} is unknown: the known ones are {', '.join([*known, *reasons])}"
            )
    return [known[name] for name in dict.fromkeys(asked)]


def measure(batch: Batch, wanted: Sequence[Measure]) -> list[dict[str, float | None]]:
    """Measure pictures.

    Args:
        batch: sizes must belong together; see `Batch`.
        wanted: those whose needs the batch cannot meet are left out.

    Returns:
        Values by name, one dictionary per picture.
    """
    has = {name for name in ("gt", "lr") if getattr(batch, name) is not None}
    height, width = batch.sr.shape[-2:]
    rows: list[dict[str, float | None]] = [{} for _ in batch.sr]
    for entry in wanted:
        if entry.needs <= has:
            fits = entry.fits(height, width)
            values = entry.compute(batch) if fits else [None] * len(rows)
            for row, value in zip(rows, values, strict=True):
                row[entry.name] = value
    return rows


def _given(pictures: Tensor | None) -> Tensor:
    if pictures is None:
        raise ValueError("the measure needs pictures that the batch lacks")
    return pictures


def _values(values: Tensor) -> Values:
    return [_finite(value) for value in values.tolist()]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _any_size(_height: int, _width: int) -> bool:
    return True


def _sides_of(least: int) -> Callable[[int, int], bool]:
    return lambda height, width: min(height, width) >= least
