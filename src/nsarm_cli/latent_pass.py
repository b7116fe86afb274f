"""A pass for models whose windows are joined as latents: sample all, then decode.

All windows of a picture give their latents, which are blended on one map for the whole picture.
A map that is small enough is decoded at once; a larger one in overlapping parts, which are
cross-faded as pixels. Where two windows meet there is thus no edge in the pixels, only a change
of content that the decoder smooths.

Letters: d latent channels, h w latents of the picture, p latents of a window per side.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nsarm_cli.imaging.color import match_color
from nsarm_cli.imaging.rows import RowReader, Rows
from nsarm_cli.imaging.tiles import RowBlender, Window, cut, mirror_to, plan
from nsarm_cli.models.interface import DECODED_SIDE, JoinsLatents
from nsarm_cli.passes import PassSettings, generators_of, scales_of, under
from nsarm_cli.retry import Relief, Retry


class LatentPass:
    """Samples overlapping windows in batches, blends latents, decodes, matches colours.

    Memory holds the input, its latents, one batch, and the pixels of one decoded row of parts.

    Args:
        resolver: a loaded model.
        device: where it lies.
        batch: windows computed at once, at least 1; it does not change the result. When the
            device runs out of memory it becomes smaller, down to 1.
        relief: tried after that, and when there is no room to decode.
        decoded_side: latents per side that are decoded at once, at least those of a window.
    """

    def __init__(
        self,
        resolver: JoinsLatents,
        device: torch.device,
        batch: int,
        relief: Relief | None = None,
        decoded_side: int = DECODED_SIDE,
    ) -> None:
        self._resolver = resolver
        self._device = device
        self._retry = Retry(device, batch, relief)
        self._pixels = resolver.pixels_per_latent
        self._side = resolver.window // self._pixels
        self._overlap = resolver.overlap // self._pixels
        self._decoded_side = max(decoded_side, self._side)

    def windows(self, height: int, width: int) -> int:
        """Count the windows of a picture."""
        return len(self._plan(height, width))

    def __call__(self, lr: Rows, settings: PassSettings) -> Rows:
        """Enlarge; see `Pass`."""
        scale = self._resolver.scale
        return Rows(lr.height * scale, lr.width * scale, self._strips(lr, settings))

    def _strips(self, lr: Rows, settings: PassSettings) -> Iterator[Tensor]:
        under(self._resolver, settings.text)
        picture = RowReader(lr).read(0, lr.height)
        grid = self._grid(lr.height, lr.width)
        padded = mirror_to(picture, *(side * self._pixels for side in grid))
        windows = self._plan(lr.height, lr.width)
        feature = self._feature(padded, grid, windows, settings)
        height, width = (side * self._resolver.scale for side in picture.shape[1:])
        done = 0
        for rows in self._decoded(feature, padded, picture, settings.color):
            strip = rows[:, : height - done, :width]
            done += strip.shape[1]
            if strip.shape[1]:
                yield strip

    def _feature(
        self,
        picture: Tensor,
        grid: tuple[int, int],
        windows: Sequence[Window],
        settings: PassSettings,
    ) -> Tensor:
        """Latents "1 d h w" of the whole picture, on the CPU."""
        blend = LatentBlend(grid, self._resolver.latent_weights)
        done = 0
        while done < len(windows):
            group = windows[done : done + self._retry.batch]
            inputs = torch.stack([cut(picture, self._in_pixels(window)) for window in group])
            for window, latents in zip(group, self._sample(inputs, done, settings), strict=True):
                blend.add(latents, window)
            done += len(group)
            settings.on_windows(done)
        return blend.result()[None]

    def _sample(self, lr: Tensor, first: int, settings: PassSettings) -> Tensor:
        """Latents "b d p p" of windows, on the CPU, the first being number `first`."""

        def work(start: int, stop: int) -> Tensor:
            return self._resolver.features(
                lr[start:stop].to(self._device),
                generators_of(settings, first + start, first + stop),
                settings.sampling,
                scales_of(first + start, stop - start, settings.on_windows),
                settings.trace if first + start == 0 else None,
            ).cpu()

        return self._retry.windows(work, len(lr), may_change=settings.first_window + first == 0)

    def _decoded(
        self, feature: Tensor, padded: Tensor, picture: Tensor, color: str
    ) -> Iterator[Tensor]:
        """Rows of the padded result; of a picture decoded at once, without the padding."""
        height, width = feature.shape[-2:]
        if max(height, width) <= self._decoded_side:
            sr = self._decode(feature)
            rows, columns = (side * self._resolver.scale for side in picture.shape[1:])
            yield match_color(sr[..., :rows, :columns], picture[None], color)[0]
            return
        side = min(self._decoded_side, height, width)
        parts = plan(height, width, side, side // 4)
        blender = RowBlender(parts, height, width, self._pixels * self._resolver.scale)
        for part in parts:
            sr = self._decode(cut(feature, part))
            rows_done = blender.add(
                match_color(sr, cut(padded, self._in_pixels(part))[None], color)
            )
            if rows_done.shape[1]:
                yield rows_done

    def _decode(self, feature: Tensor) -> Tensor:
        return self._retry.once(
            lambda: self._resolver.decode(feature.to(self._device)).cpu(), "while decoding"
        )

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Latents that cover a picture of so many input pixels, a window at least."""
        return (
            max(self._side, math.ceil(height / self._pixels)),
            max(self._side, math.ceil(width / self._pixels)),
        )

    def _plan(self, height: int, width: int) -> list[Window]:
        """Windows in latents."""
        return plan(*self._grid(height, width), self._side, self._overlap)

    def _in_pixels(self, window: Window) -> Window:
        """The same in input pixels."""
        top, left, side = (x * self._pixels for x in (window.top, window.left, window.side))
        return Window(top, left, side)


class LatentBlend:
    """Weighted mean of overlapping windows of latents.

    Args:
        grid: (height, width) of the whole, in latents.
        weights: "p p" of each window, above 0.
    """

    def __init__(self, grid: tuple[int, int], weights: Tensor) -> None:
        self._weights = weights.double()
        self._sum: Tensor | None = None
        self._total = torch.zeros(grid, dtype=torch.float64)

    def add(self, latents: Tensor, window: Window) -> None:
        """Add "d p p" at the place of a window."""
        if self._sum is None:
            self._sum = torch.zeros(len(latents), *self._total.shape, dtype=torch.float64)
        cut(self._sum, window).addcmul_(latents.double(), self._weights)
        cut(self._total, window).add_(self._weights)

    def result(self) -> Tensor:
        """The mean "d h w", float32, once every latent is covered."""
        if self._sum is None:
            raise ValueError("there is no window to blend")
        return (self._sum / self._total).float()
