"""Look for a grid that repeats with the blocks of pixels that a decoder unfolds.

    python benchmarks/grid.py --references quality/val/hr quality/val/nsarm quality/val/bicubic

The error of each picture is averaged over places of the same phase in blocks of four pixels, in
areas of 32 x 32 pixels; what repeats stays, the rest mostly cancels. Prints, for each folder, the
mean strength of what stays in levels of 255, over all of the picture and over its smooth areas (the
quarter of the areas where the reference varies least), where one sees it.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nsarm_cli.training.perceptual import pattern_map

PERIOD = 4


def read(path: Path) -> Tensor:
    """A picture as "1 3 h w", 0 to 255."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()


def strengths(made: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean strength over all areas, and over the smooth ones."""
    pattern = pattern_map(made, reference, PERIOD).abs().mean((1, 2))
    side = 8 * PERIOD
    mean = F.avg_pool2d(reference, side, side // 2)
    variance = (F.avg_pool2d(reference**2, side, side // 2) - mean**2).mean(1)
    smooth = variance <= variance.quantile(0.25)
    return float(pattern.mean()), float(pattern[smooth].mean())


def main(arguments: list[str] | None = None) -> None:
    """Measure folders of pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--references", type=Path, required=True)
    args = parser.parse_args(arguments)
    print("| folder | pictures | everywhere | smooth areas |")
    print("|---|---:|---:|---:|")
    for folder in args.folders:
        paths = sorted(folder.glob("*.png"))
        found = [strengths(read(path), read(args.references / path.name)) for path in paths]
        everywhere, smooth = (statistics.mean(column) for column in zip(*found, strict=True))
        print(f"| {folder} | {len(found)} | {everywhere:.3f} | {smooth:.3f} |")


if __name__ == "__main__":
    main()
