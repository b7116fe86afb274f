"""One pass of a model over a picture: rows in, `scale` times as many rows out.

This is where a family decides how windows become one picture. `PixelPass` enlarges windows one
by one and cross-fades their pixels. A family that joins its windows elsewhere, say in latent
space with one decode for all, brings another `Pass` and hands it to `Upscaler`; nothing before
or after it changes.

Letters: b batch, r rows, w width in pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from nsarm_cli.imaging.color import match_color
from nsarm_cli.imaging.rows import RowReader, Rows
from nsarm_cli.imaging.tiles import RowBlender, Window, cut, pad_to_window, plan
from nsarm_cli.models.interface import OnScale, Sampling, SuperResolver, TakesText, Text, Trace
from nsarm_cli.retry import Relief, Retry
from nsarm_cli.runtime import window_generator


def _ignore(_: float) -> None:
    """Take no notice of progress."""


@dataclass(frozen=True)
class PassSettings:
    """What a pass needs to know beside the picture.

    Attributes:
        seed: the user's.
        sampling: temperature, top-p, guidance.
        color: a name of `imaging.color.METHODS`.
        text: prompts of the picture; None keeps those that the model has.
        first_window: number of the first window; window i draws from
            `runtime.window_generator(seed, first_window + i)`, so that two passes over one
            picture draw apart.
        on_windows: told how many windows are done, in fractions, rising to `Pass.windows`.
        trace: when given, filled with tensors of the first window.
    """

    seed: int
    sampling: Sampling
    color: str
    text: Text | None = None
    first_window: int = 0
    on_windows: Callable[[float], None] = _ignore
    trace: Trace | None = None


class Pass(Protocol):
    """How one run of a model over a picture turns its rows into the rows of the larger one."""

    def windows(self, height: int, width: int) -> int:
        """Count the windows of a picture: the unit of progress and of random streams."""
        ...

    def __call__(self, lr: Rows, settings: PassSettings) -> Rows:
        """Enlarge.

        Args:
            lr: RGB, any size.
            settings: seed, sampling and colour.

        Returns:
            RGB, exactly `scale` times as high and wide. Work happens while its strips are
            taken; what it raises then is a `DeviceError`.
        """
        ...


class PixelPass:
    """Enlarges overlapping windows in batches, matches colours, cross-fades pixels.

    Memory holds one row of windows of the input, one of the output, and one batch.

    Args:
        resolver: a loaded model.
        device: where it lies.
        batch: windows computed at once, at least 1; it does not change the result. When the
            device runs out of memory it becomes smaller, down to 1.
        relief: tried after that.
    """

    def __init__(
        self,
        resolver: SuperResolver,
        device: torch.device,
        batch: int,
        relief: Relief | None = None,
    ) -> None:
        self._resolver = resolver
        self._device = device
        self._retry = Retry(device, batch, relief)

    def windows(self, height: int, width: int) -> int:
        """Count the windows of a picture."""
        return len(plan(height, width, self._resolver.window, self._resolver.overlap))

    def __call__(self, lr: Rows, settings: PassSettings) -> Rows:
        """Enlarge; see `Pass`."""
        scale = self._resolver.scale
        return Rows(lr.height * scale, lr.width * scale, self._strips(lr, settings))

    def _strips(self, lr: Rows, settings: PassSettings) -> Iterator[Tensor]:
        windows = plan(lr.height, lr.width, self._resolver.window, self._resolver.overlap)
        blender = RowBlender(windows, lr.height, lr.width, self._resolver.scale)
        resolver = under(self._resolver, settings.text)
        inputs: list[Tensor] = []
        for index, window_lr in enumerate(_cut_all(lr, windows)):
            inputs.append(window_lr)
            if len(inputs) < self._retry.batch and index + 1 < len(windows):
                continue
            first = index + 1 - len(inputs)
            outputs = self._resolve(resolver, torch.stack(inputs), first, settings)
            for one, window_sr in zip(inputs, outputs, strict=True):
                # One by one, since a sum over a batch may be rounded in another order.
                rows = blender.add(match_color(window_sr[None], one[None], settings.color))
                if rows.shape[1]:
                    yield rows
            settings.on_windows(index + 1)
            inputs = []

    def _resolve(
        self, resolver: SuperResolver, lr: Tensor, first: int, settings: PassSettings
    ) -> Tensor:
        """Enlarge windows, "b 3 window window" on the CPU, the first being number `first`."""

        def work(start: int, stop: int) -> Tensor:
            return resolver.resolve(
                lr[start:stop].to(self._device),
                generators_of(settings, first + start, first + stop),
                settings.sampling,
                scales_of(first + start, stop - start, settings.on_windows),
                settings.trace if first + start == 0 else None,
            )

        return self._retry.windows(work, len(lr), may_change=settings.first_window + first == 0)


def generators_of(settings: PassSettings, first: int, stop: int) -> list[Generator]:
    """Each window's own generator, for some windows of a pass."""
    start = settings.first_window
    return [window_generator(settings.seed, start + i) for i in range(first, stop)]


def under(resolver: SuperResolver, text: Text | None) -> SuperResolver:
    """The model under the prompts of a picture, or as it is when there are none.

    Raises:
        ValueError: there are, and the model takes no text.
    """
    if text is None:
        return resolver
    if not isinstance(resolver, TakesText):
        raise ValueError("this model takes no text")  # noqa: TRY004  (a value, not a type)
    return resolver.with_text(text)


def _cut_all(lr: Rows, windows: list[Window]) -> Iterator[Tensor]:
    """Cut windows, row of windows by row of windows, mirrored where the picture is smaller."""
    reader = RowReader(lr)
    band, top = torch.empty(0), -1
    for window in windows:
        if window.top != top:
            top = window.top
            band = reader.read(top, min(top + window.side, lr.height))
            band = pad_to_window(band, window.side)
        yield cut(band, Window(0, window.left, window.side))


def scales_of(first: int, count: int, on_windows: Callable[[float], None]) -> OnScale:
    """Turn the scales of one batch into finished windows.

    What follows the last scale, decoding and colour, counts as one scale more.
    """
    return lambda done, scales: on_windows(first + count * done / (scales + 1))
