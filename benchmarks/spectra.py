"""Compare the spectra of pairs of pictures: what do cameras lose, and does a recipe lose the same?

    python benchmarks/spectra.py --hr RealSR/test_HR --lr RealSR/test_LR
    python benchmarks/spectra.py --hr quality/val/hr --recipe camera

Of each reference the middle is taken, and of the input of the same name the same part; with
`--recipe` the input, and what is to be restored, are made from the reference. Prints medians over
the pictures, frequencies as shares of the highest that the reference has (Nyquist):

* references: mean power of each band over that of the first: how sharp their pixels are;
* inputs: power of the input, enlarged by bicubic, over that of the reference: below 1 what was
  lost, above 1 what was sharpened or is noise.

A recipe like one's own pictures is a good one to train with.
"""

import argparse
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from ceilings import middle
from nsarm_cli.degradation import RECIPES, make_pairs
from nsarm_cli.imaging.tensors import resize_bicubic

Pair = tuple[Tensor, Tensor]
REFERENCE_BANDS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
INPUT_BANDS = (0.0, 0.06, 0.1, 0.14, 0.18, 0.25)


def band_powers(picture: Tensor, edges: Sequence[float]) -> list[float]:
    """Mean power of a square picture in bands of frequency.

    Args:
        picture: "1 3 n n", any range; its mean over the channels is looked at, without its own
            mean, and fading out towards the border (Hann).
        edges: of the bands, as shares of the Nyquist frequency, rising.

    Returns:
        One number per band, of the lower edge and up to the upper.
    """
    grey = picture.mean(1)[0]
    side = grey.shape[-1]
    fade = torch.hann_window(side)
    power = torch.fft.fft2((grey - grey.mean()) * fade * fade[:, None]).abs().square()
    frequency = torch.fft.fftfreq(side) * 2
    radius = torch.hypot(frequency, frequency[:, None])
    return [float(power[(radius >= a) & (radius < b)].mean()) for a, b in pairwise(edges)]


def sharpness(reference: Tensor) -> list[float]:
    """Power of each of `REFERENCE_BANDS` over that of the first."""
    first, *others = band_powers(reference, REFERENCE_BANDS)
    return [other / first for other in others]


def kept(pair: Pair) -> list[float]:
    """Power of an input, enlarged, over its reference's in each of `INPUT_BANDS`."""
    reference, lr = pair
    enlarged = resize_bicubic(lr, reference.shape[-2:])
    both = (band_powers(x, INPUT_BANDS) for x in (enlarged, reference))
    return [a / b for a, b in zip(*both, strict=True)]


def medians(rows: Iterable[list[float]]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def photographed(references: list[Path], lr: Path, side: int) -> Iterator[Pair]:
    """Pairs of files with the same name."""
    for path in references:
        yield middle(path, side), middle(lr / path.name, side // 4)


def made(references: list[Path], recipe: str, side: int) -> Iterator[Pair]:
    """Pairs that a recipe makes; picture i, from 0, with the seed i."""
    for seed, path in enumerate(references):
        rng = torch.Generator().manual_seed(seed)
        pair = make_pairs((middle(path, side) + 1) / 2, RECIPES[recipe], [rng])
        reference, lr = (x * 2 - 1 for x in pair)
        yield reference, lr


def _row(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _bands(edges: Sequence[float]) -> list[str]:
    return [f"{a:g} to {b:g}" for a, b in pairwise(edges)]


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hr", type=Path, required=True)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--lr", type=Path, help="a quarter of the size")
    inputs.add_argument("--recipe", choices=[n for n, r in RECIPES.items() if r.scale == 4])
    parser.add_argument("--side", type=int, default=256, help="of the middle, in reference pixels")
    args = parser.parse_args(arguments)
    references = sorted(args.hr.glob("*.png"))
    if not references:
        parser.error(f"--hr {args.hr} has no .png; name a folder that has")
    if args.side % 4 or args.side < 64:
        parser.error(f"--side {args.side} does not suit; give a multiple of 4 from 64 on")
    if args.recipe is None:
        pairs = list(photographed(references, args.lr, args.side))
    else:
        pairs = list(made(references, args.recipe, args.side))
    for name, edges, found in (
        ("references", REFERENCE_BANDS[1:], medians(sharpness(hr) for hr, _ in pairs)),
        ("inputs", INPUT_BANDS, medians(kept(pair) for pair in pairs)),
    ):
        print(_row(f"{len(pairs)} {name}", _bands(edges)))
        print(_row("---", ("---:" for _ in found)))
        print(_row("median", (f"{value:.4f}" for value in found)), end="\n\n")


if __name__ == "__main__":
    main()
