"""One picture in, one picture several times as large out.

The picture is cut into overlapping windows, a model enlarges them in batches, each gets the
colours of its input, and blended rows go straight into the output: memory holds the two
pictures, one row of windows and one batch.
"""

from collections.abc import Callable
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.errors import DeviceError
from nsarm_cli.imaging.color import match_color
from nsarm_cli.imaging.rgb import to_rgb
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.imaging.tiles import RowBlender, cut, pad_to_window, plan
from nsarm_cli.models.interface import OnScale, Sampling, SuperResolver, Trace
from nsarm_cli.runtime import choose_device, choose_dtype, window_generator

DEFAULT_MODEL = "nsarm-nano"
"""Ships with the package, so it is always there."""

OnProgress = Callable[[float], None]
"""Called with the finished share of a picture, rising to 1."""


class Upscaler:
    """Enlarges pictures with one model on one device.

    Args:
        resolver: a loaded model.
        device: where the model lies.
        batch: windows computed at once; by default 1 on a processor, where more is no faster,
            and 4 elsewhere. It does not change the result.

    Raises:
        ValueError: the batch is not at least 1.
    """

    def __init__(
        self, resolver: SuperResolver, device: torch.device, *, batch: int | None = None
    ) -> None:
        if batch is None:
            batch = 1 if device.type == "cpu" else 4
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self._resolver = resolver
        self._device = device
        self._batch = batch

    @classmethod
    def from_pretrained(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch: int | None = None,
    ) -> Self:
        """Load a model.

        Args:
            model: a known name, or a folder with config.json and model.safetensors.
            device: see `runtime.choose_device`.
            precision: see `runtime.choose_dtype`.
            batch: windows computed at once.

        Raises:
            WeightsError: no such model, or its files are missing or damaged.
            DeviceError: no such device or precision.
        """
        from nsarm_cli.weights.families import load_resolver

        chosen, _ = choose_device(device)
        dtype, _ = choose_dtype(precision, chosen)
        return cls(load_resolver(model, chosen, dtype), chosen, batch=batch)

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, per side."""
        return self._resolver.scale

    @property
    def window(self) -> int:
        """Side, in input pixels, of the windows that a picture is cut into."""
        return self._resolver.window

    @property
    def overlap(self) -> int:
        """Fewest input pixels that neighbouring windows share."""
        return self._resolver.overlap

    @property
    def sampling(self) -> Sampling:
        """The settings the model was tuned for."""
        return self._resolver.sampling

    def upscale(
        self,
        image: Image.Image,
        *,
        seed: int = 0,
        sampling: Sampling | None = None,
        color: str | None = None,
        on_progress: OnProgress | None = None,
        trace: Trace | None = None,
    ) -> Image.Image:
        """Enlarge one picture.

        Args:
            image: any size and mode; it is taken as RGB, transparent parts on white.
            seed: every window draws from `runtime.window_generator(seed, index)`, so the same
                seed gives the same picture whatever the batch.
            sampling: temperature, top-p, guidance; by default the model's.
            color: a name of `imaging.color.METHODS`; by default the model's.
            on_progress: told of every scale of every batch.
            trace: when given, filled with tensors of the first window.

        Returns:
            An RGB picture, exactly `scale` times as wide and high.

        Raises:
            DeviceError: the device is out of memory.
            ValueError: an unknown colour correction.
        """
        resolver, report = self._resolver, on_progress or (lambda _: None)
        sampling = sampling or resolver.sampling
        color = color or resolver.color
        lr = pad_to_window(to_tensor(to_rgb(image)), resolver.window)
        windows = plan(image.height, image.width, resolver.window, resolver.overlap)
        blender = RowBlender(windows, image.height, image.width, resolver.scale)
        large = Image.new("RGB", (image.width * resolver.scale, image.height * resolver.scale))
        top = 0
        for start in range(0, len(windows), self._batch):
            inputs = torch.stack([cut(lr, w) for w in windows[start : start + self._batch]])
            outputs = self._resolve(
                inputs,
                [window_generator(seed, start + i) for i in range(len(inputs))],
                sampling,
                _scales_of(start, len(inputs), len(windows), report),
                trace if start == 0 else None,
            )
            for window_lr, window_sr in zip(inputs, outputs, strict=True):
                # One by one, since a sum over a batch may be rounded in another order.
                rows = blender.add(match_color(window_sr[None], window_lr[None], color))
                if rows.shape[1]:
                    large.paste(to_image(rows), (0, top))
                    top += rows.shape[1]
            report((start + len(inputs)) / len(windows))
        return large

    def _resolve(
        self,
        lr: Tensor,
        generators: list[torch.Generator],
        sampling: Sampling,
        on_scale: OnScale,
        trace: Trace | None,
    ) -> Tensor:
        """Enlarge windows, "b 3 window window" on the CPU; see `SuperResolver.resolve`."""
        try:
            with torch.inference_mode():
                return self._resolver.resolve(
                    lr.to(self._device), generators, sampling, on_scale, trace
                )
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"device {self._device} is out of memory with {len(lr)} windows at once; "
                "take fewer with --batch, or --device cpu"
            ) from error


def _scales_of(start: int, count: int, total: int, report: OnProgress) -> OnScale:
    """Turn the scales of one batch into progress of the whole picture.

    What follows the last scale, decoding and colour, counts as one scale more.
    """
    return lambda done, scales: report((start + count * done / (scales + 1)) / total)
