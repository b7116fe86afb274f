"""Measures of enlarged pictures, their means, and whether a difference is more than noise.

Pictures are RGB, uint8, "h w 3". PSNR-Y, LR consistency and colour shift are computed here;
SSIM-Y, LPIPS (AlexNet), DISTS and NIQE by pyiqa, when it is installed. Nothing of nsarm is
imported, so that the measures run in an environment of their own.
"""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

SCALE = 4
HIGHER_IS_BETTER = {
    "psnr_y": True,
    "ssim_y": True,
    "lpips": False,
    "dists": False,
    "niqe": False,
    "lr_psnr": True,
    "color_shift": False,
}
"""The columns, in the order of the table. Colour shift is in levels of 0..255."""

_LUMA = np.array([65.481, 128.553, 24.966])


def luma(picture: Pixels) -> Floats:
    """Compute the BT.601 luma of studio range, 16..235, not rounded: "h w"."""
    return picture / 255 @ _LUMA + 16


def psnr(a: Floats, b: Floats, peak: float) -> float:
    """Compare two arrays of one shape, in dB; equal ones are 120 dB apart."""
    error = np.mean(np.square(a - b)) / peak**2
    return float(-10 * np.log10(max(error, 1e-12)))


def reduce(picture: Pixels) -> Floats:
    """Reduce a picture four times by antialiased bicubic, without rounding.

    Keys' kernel (a = -0.5) stretched four times, with mirrored borders, as MATLAB's
    `imresize` does it.

    Args:
        picture: sides are multiples of 4.

    Returns:
        "h/4 w/4 3", in [0, 255].
    """
    reach = 2 * SCALE
    offsets = (np.arange(2 * reach) - reach + 0.5) / SCALE
    distance = np.abs(offsets)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, far)
    weights /= weights.sum()
    pad = reach - SCALE // 2
    reduced = picture.astype(np.float64)
    for axis in (0, 1):
        count = reduced.shape[axis] // SCALE
        widths = [(pad, pad) if a == axis else (0, 0) for a in range(3)]
        padded = np.moveaxis(np.pad(reduced, widths, mode="symmetric"), axis, 0)
        taps = (padded[i : i + SCALE * count : SCALE] * w for i, w in enumerate(weights))
        reduced = np.moveaxis(sum(taps, np.zeros(())), 0, axis)
    return np.clip(reduced, 0, 255)


def own_measures(sr: Pixels, lr: Pixels, hr: Pixels | None) -> dict[str, float]:
    """Measure what needs no learned weights.

    Returns:
        psnr_y when there is a reference; lr_psnr, of the reduced output against the input over
        RGB; color_shift, by how much the channel that moved most did; and the signed shift of
        each channel.

    Raises:
        ValueError: the sizes do not belong together.
    """
    if sr.shape != (SCALE * lr.shape[0], SCALE * lr.shape[1], 3):
        raise ValueError(f"{sr.shape[:2]} pixels are not four times {lr.shape[:2]}")
    if hr is not None and hr.shape != sr.shape:
        raise ValueError(f"{sr.shape[:2]} pixels are not the {hr.shape[:2]} of the reference")
    reduced = reduce(sr)
    shift = (reduced - lr).mean((0, 1))
    measures = {} if hr is None else {"psnr_y": psnr(luma(sr), luma(hr), 255)}
    return measures | {
        "lr_psnr": psnr(reduced, lr.astype(np.float64), 255),
        "color_shift": float(np.abs(shift).max()),
        **{f"shift_{c}": float(s) for c, s in zip("rgb", shift, strict=True)},
    }


class Perceptual:
    """SSIM-Y, LPIPS, DISTS and NIQE from pyiqa.

    Raises:
        ImportError: pyiqa is not installed.
        RuntimeError: pyiqa is installed, but what it needs does not load.
    """

    def __init__(self) -> None:
        import pyiqa  # noqa: PLC0415  # optional: its licence allows noncommercial use only
        import torch  # noqa: PLC0415  # comes with pyiqa

        def create(name: str, **settings: object) -> Any:
            return pyiqa.create_metric(name, device="cpu", **settings)

        self._torch = torch
        with redirect_stdout(sys.stderr):  # pyiqa tells there which files it reads
            self._with_reference = {
                "ssim_y": create("ssim", test_y_channel=True, color_space="ycbcr"),
                "lpips": create("lpips"),
                "dists": create("dists"),
            }
            self._without = {"niqe": create("niqe")}

    def measure(self, sr: Pixels, hr: Pixels | None) -> dict[str, float]:
        """Measure one picture; without a reference, NIQE alone."""

        def batch(picture: Pixels) -> Any:
            floats = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
            return self._torch.from_numpy(floats)

        with self._torch.inference_mode():
            x = batch(sr)
            found = {name: float(metric(x)) for name, metric in self._without.items()}
            if hr is not None:
                y = batch(hr)
                metrics = self._with_reference.items()
                found |= {name: float(metric(x, y)) for name, metric in metrics}
        return found


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean and its standard error; the error of a single value is not a number."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


@dataclass(frozen=True)
class Difference:
    """Of two methods on the same pictures.

    Attributes:
        mean: of the differences.
        low: end of the 95 % bootstrap interval of the mean.
        high: its other end.
        better: share of the pictures on which the first method is better.
        verdict: "better" or "worse" if the interval leaves out 0, else "unclear".
    """

    mean: float
    low: float
    high: float
    better: float
    verdict: str


def paired_difference(column: str, a: Floats, b: Floats, seed: int = 0) -> Difference:
    """Compare two methods picture by picture.

    Args:
        column: of `HIGHER_IS_BETTER`.
        a: one value per picture.
        b: the other method's, in the same order.
        seed: of the 10,000 resamples of the pictures.
    """
    d = a - b
    rng = np.random.default_rng(seed)
    means = d[rng.integers(len(d), size=(10_000, len(d)))].mean(1)
    low, high = (float(x) for x in np.quantile(means, [0.025, 0.975]))
    gain = d if HIGHER_IS_BETTER[column] else -d
    verdict = "unclear" if low <= 0 <= high else "better" if gain.mean() > 0 else "worse"
    return Difference(float(d.mean()), low, high, float((gain > 0).mean()), verdict)
