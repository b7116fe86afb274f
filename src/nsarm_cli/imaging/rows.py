"""A picture that passes by row by row, so that no step has to hold all of it.

Letters: c channels, r rows of one strip, w width in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

STRIP = 64
"""Rows that are handed over at once where a step may choose."""


@dataclass(frozen=True)
class Rows:
    """A picture on its way from one step to the next; it can be walked through once.

    Attributes:
        height: of the whole picture, in pixels.
        width: likewise.
        strips: its rows from top to bottom in pieces "c r w", float32 in [-1, 1] on the CPU;
            r may differ from piece to piece and adds up to `height`.
    """

    height: int
    width: int
    strips: Iterator[Tensor]

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        """Walk through a picture that is in memory.

        Args:
            x: "c h w", float32 in [-1, 1].
        """
        return cls(x.shape[1], x.shape[2], iter(torch.split(x, STRIP, dim=1)))


class RowReader:
    """Gives bands of rows that may overlap, and forgets what lies above them.

    Args:
        rows: the picture; the reader walks through it alone.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._held: list[Tensor] = []
        self._top = 0
        self._bottom = 0

    def read(self, top: int, bottom: int) -> Tensor:
        """Give the rows from `top` up to and without `bottom`.

        Args:
            top: not above that of the call before.
            bottom: below `top`, at most the height.

        Returns:
            "c (bottom - top) w".

        Raises:
            ValueError: rows that were let go of, or that the picture does not have.
        """
        if not self._top <= top < bottom <= self._rows.height:
            raise ValueError(
                f"rows {top} to {bottom} are not within {self._top} to {self._rows.height}"
            )
        while self._held and self._top + self._held[0].shape[1] <= top:
            self._top += self._held.pop(0).shape[1]
        while self._bottom < bottom:
            strip = next(self._rows.strips)
            self._held.append(strip)
            self._bottom += strip.shape[1]
            if self._bottom <= top:
                self._top = self._bottom
                self._held.clear()
        band = self._held[0] if len(self._held) == 1 else torch.cat(self._held, dim=1)
        return band[:, top - self._top : bottom - self._top]
