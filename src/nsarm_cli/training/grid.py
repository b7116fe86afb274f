"""Picture grids that show a person how training goes."""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.atomic import whole_file

_log = logging.getLogger(__name__)


class Gallery:
    """The first pictures of a validation, in columns: what was given, made and wanted.

    Args:
        columns: how many pictures are shown.
    """

    def __init__(self, columns: int = 8) -> None:
        self._columns = columns
        self._rows: list[list[Tensor]] = []

    def show(self, *rows: Tensor) -> None:
        """Add pictures "b 3 h w" in [-1, 1], row by row; those beyond the columns are not kept."""
        self._rows = self._rows or [[] for _ in rows]
        for kept, row in zip(self._rows, rows, strict=True):
            kept.extend(row[: self._columns - len(kept)].float().cpu())

    def write(self, path: Path | None) -> None:
        """Write them as one PNG, small ones enlarged by repeating pixels.

        Args:
            path: of the PNG; None writes nothing, for processes that only help to compute. Where
                the disk refuses, it is told and training goes on.
        """
        if path is None:
            return
        rows = [torch.stack(row) for row in self._rows]
        height, width = max(tuple(row.shape[-2:]) for row in rows)
        strips = []
        for row in rows:
            same = F.interpolate(row, (height, width), mode="nearest")
            strips.append(torch.cat(list(same), dim=2))
        pixels = (torch.cat(strips, dim=1).clamp(-1, 1) + 1) * 127.5
        array = pixels.round().to(torch.uint8).permute(1, 2, 0).numpy()
        try:
            with whole_file(path, overwrite=True) as file:
                Image.fromarray(array).save(file, "PNG")
        except ImageError as error:
            _log.warning("no pictures of this validation: %s", error)
