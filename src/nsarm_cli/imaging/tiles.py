"""A picture as overlapping square windows, and their blend back into one picture.

The plan and the cuts are in input pixels. Windows come back `scale` times larger; they are
cross-faded where they overlap and joined band by band, so that memory holds one row of
windows however tall the picture is.

Letters: b batch, c channels, h w height and width in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A square of input pixels.

    Attributes:
        top: first row.
        left: first column.
        side: rows, and columns.
    """

    top: int
    left: int
    side: int


def plan(height: int, width: int, side: int, overlap: int) -> list[Window]:
    """Cover a picture with as few windows as the overlap allows, evenly spread.

    Args:
        height: of the picture, in pixels, at least 1.
        width: likewise.
        side: of a window, in pixels.
        overlap: fewest pixels that neighbours share, in [0, side).

    Returns:
        Windows from left to right, then from top to bottom. The first begins at 0, the last
        ends with the picture; a picture shorter than a window on an axis has one window there,
        which reaches past its end (see `pad_to_window`).

    Raises:
        ValueError: an empty picture, or an overlap out of range.
    """
    if min(height, width) < 1:
        raise ValueError(f"a picture needs at least 1x1 pixels, got {height}x{width}")
    if not 0 <= overlap < side:
        raise ValueError(f"overlap must be in [0, {side}), got {overlap}")
    return [
        Window(top, left, side)
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def pad_to_window(x: Tensor, side: int) -> Tensor:
    """Extend a picture at the bottom and right until a window fits.

    It is mirrored about its last row and column, again and again if it is small; a single row
    or column, which has no mirror image, is repeated.

    Args:
        x: "... h w".
        side: of a window, in pixels.

    Returns:
        "... max(h, side) max(w, side)"; `x` itself when it is large enough.
    """
    return mirror_to(x, side, side)


def mirror_to(x: Tensor, height: int, width: int) -> Tensor:
    """The same to any least size: "... h w" to "... max(h, height) max(w, width)"."""
    if x.shape[-2] < height:
        x = x.index_select(-2, _mirrored(x.shape[-2], height).to(x.device))
    if x.shape[-1] < width:
        x = x.index_select(-1, _mirrored(x.shape[-1], width).to(x.device))
    return x


def cut(x: Tensor, window: Window) -> Tensor:
    """Take one window out of a picture.

    Args:
        x: "... h w", already padded by `pad_to_window`.
        window: one of the plan of the picture.

    Returns:
        "... side side", a view.

    Raises:
        ValueError: the window reaches past the picture.
    """
    bottom, right = window.top + window.side, window.left + window.side
    if bottom > x.shape[-2] or right > x.shape[-1]:
        raise ValueError(f"{window} reaches past a picture of {x.shape[-2]}x{x.shape[-1]}")
    return x[..., window.top : bottom, window.left : right]


class RowBlender:
    """Joins enlarged windows into the rows of the enlarged picture.

    A neighbour fades in with half a cosine over just the pixels both cover, the other fades
    out by as much, and borders of the picture do not fade: the weights of a pixel sum to 1.

        blender = RowBlender(windows, height, width, scale=4)
        for batch in batches:  # of `windows`, in order
            rows = blender.add(resolve(batch))  # "c r (4 width)", perhaps r = 0

    Args:
        windows: the whole plan of the picture.
        height: of the input picture, without padding, in pixels.
        width: likewise.
        scale: output pixels per input pixel, per side.
        channels: of the windows.
    """

    def __init__(
        self, windows: Sequence[Window], height: int, width: int, scale: int, channels: int = 3
    ) -> None:
        self._windows = [(w.top * scale, w.left * scale) for w in windows]
        self._height, self._width = height * scale, width * scale
        self._side = windows[0].side * scale
        tops = sorted({top for top, _ in self._windows})
        lefts = sorted({left for _, left in self._windows})
        self._next_top = dict(zip(tops, [*tops[1:], self._height], strict=True))
        self._last_left = lefts[-1]
        self._row_weights = _fades(tops, self._side)
        self._column_weights = _fades(lefts, self._side)
        # The rows that the current row of windows reaches; the picture may end before.
        self._band = torch.zeros(channels, min(self._side, self._height), self._width)
        self._done = 0

    def add(self, sr: Tensor) -> Tensor:
        """Take the next windows of the plan.

        Args:
            sr: "b c (scale side) (scale side)", b at least 0, on any device and of any float
                type. The result does not depend on how the windows are grouped.

        Returns:
            "c r (scale width)", float32 on the CPU: the next r rows of the picture that no
            later window touches. r is 0 until a row of windows is complete.

        Raises:
            ValueError: more windows than planned, or of another size.
        """
        expected = (self._band.shape[0], self._side, self._side)
        if sr.shape[1:] != expected:
            raise ValueError(f"expected windows of {expected}, got {tuple(sr.shape[1:])}")
        if self._done + len(sr) > len(self._windows):
            raise ValueError(f"the plan has only {len(self._windows)} windows")
        rows = [self._band[:, :0]]
        for window in sr.to("cpu", torch.float32):
            top, left = self._windows[self._done]
            self._done += 1
            self._blend(window, top, left)
            if left == self._last_left:
                rows.append(self._take(self._next_top[top] - top))
        return torch.cat(rows, dim=1)

    def _blend(self, window: Tensor, top: int, left: int) -> None:
        band = self._band[:, :, left : left + self._side]
        h, w = band.shape[1:]
        weights = self._row_weights[top][:h, None] * self._column_weights[left][:w]
        band.addcmul_(window[:, :h, :w], weights)

    def _take(self, count: int) -> Tensor:
        """Cut off the first rows of the band, which begins `count` rows lower from then on."""
        rows = self._band[:, :count].clone()
        kept = self._band[:, count:].clone()
        self._band[:, : kept.shape[1]] = kept
        self._band[:, kept.shape[1] :] = 0
        return rows


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Place windows along one axis."""
    if length <= side:
        return [0]
    steps = math.ceil((length - side) / (side - overlap))
    return [(length - side) * i // steps for i in range(steps + 1)]


def _mirrored(length: int, side: int) -> Tensor:
    """Choose for each of `side` places the one of `length` that a mirror at both ends shows."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(side) % period
    return torch.minimum(places, period - places)


def _fades(starts: Sequence[int], side: int) -> dict[int, Tensor]:
    """Weigh the pixels of each window along one axis.

    Between window i and the next a step s_i rises from 0 to 1 over the pixels they share.
    Window i weighs s_(i-1) - s_i: the sum over all windows telescopes to 1 at every pixel,
    even where three of them meet, and no weight is negative as the steps are in order.

    Args:
        starts: of the windows, rising.
        side: of a window; neighbours touch or overlap.

    Returns:
        Start -> "side", float32 in [0, 1].
    """
    weights = {}
    for i, start in enumerate(starts):
        pixels = start + torch.arange(side, dtype=torch.float64) + 0.5
        weight = torch.ones_like(pixels)
        if i > 0:
            weight = _step(pixels, start, starts[i - 1] + side)
        if i + 1 < len(starts):
            weight = weight - _step(pixels, starts[i + 1], start + side)
        weights[start] = weight.float()
    return weights


def _step(pixels: Tensor, begin: int, end: int) -> Tensor:
    """Rise from 0 at `begin` to 1 at `end` along half a cosine; at once if they coincide."""
    if begin == end:
        return (pixels > begin).double()
    return 0.5 - 0.5 * torch.cos(torch.pi * ((pixels - begin) / (end - begin)).clamp(0, 1))
