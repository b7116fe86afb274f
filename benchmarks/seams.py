"""Look for seams between windows in enlarged photographs.

    python benchmarks/seams.py --out quality

Where a window begins or ends, a seam would make the mean absolute gradient across that line
differ from the one inside windows. Photographs that are smooth show it best, so the smoothest
inputs of a set that `nano_quality.py make` wrote are taken, for every method: bicubic has no
windows and shows what content alone gives.

The interior is measured twice. Once as all other lines: simple, but the content differs between
the middle and the edges of a picture, and lines between enlarged input pixels, where windows
end, are steeper even without windows. And once as the next such lines on both sides of the
border, which share content and place; for these, the same grid shifted over the picture by whole
input pixels gives the range to be expected by chance. Use the clean set: windows often end at
multiples of 8, where a JPEG input has edges of its own.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from measures import SCALE, Floats, luma
from nano_quality import SETS, pictures_in
from nsarm_cli.imaging.tiles import plan
from nsarm_cli.models.nsarm.config import NSARM_NANO

NEIGHBOURS = (-4, -3, -2, 2, 3, 4)
"""The next lines, in input pixels from the border; at 1, a blurred seam may still reach them."""


def border_lines(length: int, window: int, overlap: int) -> list[int]:
    """List where windows begin or end inside a picture, along one axis.

    Args:
        length: of the input, in pixels.
        window: side of a window, in input pixels.
        overlap: fewest input pixels that neighbours share.

    Returns:
        Multiples of the scale, in pixels of the output; a line at x lies between x - 1 and x.
    """
    starts = {w.left for w in plan(window, length, window, overlap)}
    ends = {start + window for start in starts}
    return sorted(SCALE * x for x in starts | ends if 0 < x < length)


def profile(y: Floats, axis: int) -> Floats:
    """Mean absolute gradient across each line: element x is across the line at x, 0 is unused."""
    steps = np.abs(np.diff(y, axis=axis)).mean(1 - axis)
    return np.concatenate([[0.0], steps])


def against_interior(profiles: Sequence[Floats], lines: Sequence[list[int]]) -> float:
    """Divide the mean gradient across border lines by that across all other lines.

    Args:
        profiles: of `profile`, one per axis.
        lines: of `border_lines`, one list per axis.
    """
    borders, interior = [], []
    for values, places in zip(profiles, lines, strict=True):
        borders.append(values[places])
        interior.append(np.delete(values, [0, *places]))
    return float(np.concatenate(borders).mean() / np.concatenate(interior).mean())


def against_neighbours(
    profiles: Sequence[Floats], lines: Sequence[list[int]], shift: int = 0
) -> float:
    """Divide the mean gradient across border lines by that across the next lines of their kind.

    Args:
        profiles: of `profile`, one per axis.
        lines: of `border_lines`, one list per axis.
        shift: moves the grid by so many input pixels, around the end of the picture.
    """
    borders, interior = [], []
    for values, places in zip(profiles, lines, strict=True):
        inner = values[SCALE::SCALE]  # the lines between enlarged input pixels
        at = np.array(places) // SCALE - 1 + shift
        borders.append(inner[at % len(inner)])
        interior += [inner[(at + step) % len(inner)] for step in NEIGHBOURS]
    return float(np.concatenate(borders).mean() / np.concatenate(interior).mean())


def load_luma(path: Path) -> Floats:
    with Image.open(path) as picture:
        return luma(np.asarray(picture.convert("RGB")))


def smoothest(folder: Path, count: int) -> list[Path]:
    """Choose the pictures with the least mean gradient."""

    def roughness(path: Path) -> float:
        y = load_luma(path)
        return float(np.mean([np.abs(np.diff(y, axis=axis)).mean() for axis in (0, 1)]))

    return sorted(pictures_in(folder).values(), key=roughness)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder that make filled")
    parser.add_argument("--set", choices=SETS, default="clean")
    parser.add_argument("--count", type=int, default=24, help="smoothest inputs to take")
    parser.add_argument("--window", type=int, default=NSARM_NANO.window)
    parser.add_argument("--overlap", type=int, default=NSARM_NANO.overlap)
    args = parser.parse_args()
    chosen = smoothest(args.out / args.set / "lr", args.count)
    if not chosen:
        sys.exit(f"{args.out / args.set}: holds no inputs; run nano_quality.py make first")
    print("| method | n | against all lines | against neighbours | by chance, 95 % |")
    print("|---|---|---|---|---|")
    folders = (p for p in (args.out / args.set).glob("*") if p.name not in ("hr", "lr"))
    for folder in sorted(folders):
        made = pictures_in(folder)
        plain, local = [], []
        for path in (made[p.stem] for p in chosen if p.stem in made):
            y = load_luma(path)
            profiles = [profile(y, axis) for axis in (0, 1)]
            lines = [border_lines(n // SCALE, args.window, args.overlap) for n in y.shape]
            plain.append(against_interior(profiles, lines))
            shifts = range(min(y.shape) // SCALE - 1)
            local.append([against_neighbours(profiles, lines, shift) for shift in shifts])
        if plain:
            found, *others = np.mean(local, axis=0)
            # Near shifts still see the borders, as their neighbours.
            reach = max(NEIGHBOURS)
            low, high = np.quantile(others[reach:-reach], [0.025, 0.975])
            cells = [f"{np.mean(plain):.4f}", f"{found:.4f}", f"{low:.4f} to {high:.4f}"]
            print("|", " | ".join([folder.name, str(len(plain)), *cells]), "|")


if __name__ == "__main__":
    main()
