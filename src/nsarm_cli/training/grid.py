"""Picture grids that show a person how training goes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.atomic import whole_file

_log = logging.getLogger(__name__)


def write_grid(rows: Sequence[Tensor], path: Path | None) -> None:
    """Write rows of pictures as one PNG.

    Args:
        rows: each "b 3 h w" in [-1, 1]; pictures smaller than the largest are enlarged by
            repeating pixels.
        path: of the PNG; None writes nothing, for processes that only help to compute. Where the
            disk refuses, it is told and training goes on.
    """
    if path is None:
        return
    height, width = max(tuple(row.shape[-2:]) for row in rows)
    strips = []
    for row in rows:
        same = F.interpolate(row.float(), (height, width), mode="nearest")
        strips.append(torch.cat(list(same), dim=2))
    pixels = (torch.cat(strips, dim=1).clamp(-1, 1) + 1) * 127.5
    array = pixels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    try:
        with whole_file(path, overwrite=True) as file:
            Image.fromarray(array).save(file, "PNG")
    except ImageError as error:
        _log.warning("no pictures of this validation: %s", error)
