"""Picture grids that show a person how training goes."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def write_grid(rows: Sequence[Tensor], path: Path | None) -> None:
    """Write rows of pictures as one PNG.

    Args:
        rows: each "b 3 h w" in [-1, 1]; pictures smaller than the first row's are
            enlarged by repeating pixels.
        path: of the PNG; None writes nothing, for processes that only help to compute.
    """
    if path is None:
        return
    height, width = rows[0].shape[-2:]
    strips = []
    for row in rows:
        same = F.interpolate(row.float(), (height, width), mode="nearest")
        strips.append(torch.cat(list(same), dim=2))
    pixels = (torch.cat(strips, dim=1).clamp(-1, 1) + 1) * 127.5
    array = pixels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(array).save(path)
