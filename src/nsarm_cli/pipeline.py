"""One picture in, one larger picture out, row by row.

Rows of the input go through as many passes of a model as the enlargement needs (`passes`), each
followed by a resize where the size is not yet the wanted one, and come out as rows of the
result: memory holds a band of rows of each step, however high the picture is.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.enlargement import plan_sizes
from nsarm_cli.imaging.resample import resize_rows
from nsarm_cli.imaging.rgb import to_rgb
from nsarm_cli.imaging.rows import Rows
from nsarm_cli.imaging.tensors import from_rows, to_rows
from nsarm_cli.latent_pass import LatentPass
from nsarm_cli.models.interface import JoinsLatents, Sampling, SuperResolver, Trace
from nsarm_cli.passes import Pass, PassSettings, PixelPass
from nsarm_cli.prompting import PromptEncoder, Prompts
from nsarm_cli.retry import Relief
from nsarm_cli.runtime import choose_device, choose_dtype

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
        one_pass: how a run of the model over a picture goes; by default a `LatentPass` for a
            model that joins its windows as latents, and a `PixelPass` for the others.
        relief: makes room when the device runs out of memory in spite of a batch of 1.
        load_encoder: loads what reads prompts; called when the first prompt is text.

    Raises:
        ValueError: the batch is not at least 1.
    """

    def __init__(
        self,
        resolver: SuperResolver,
        device: torch.device,
        *,
        batch: int | None = None,
        one_pass: Pass | None = None,
        relief: Relief | None = None,
        load_encoder: Callable[[], PromptEncoder] | None = None,
    ) -> None:
        if batch is None:
            batch = 1 if device.type == "cpu" else 4
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self._resolver = resolver
        self._pass = one_pass or _pass_for(resolver, device, batch, relief)
        self._prompts = Prompts(resolver, load_encoder)

    @classmethod
    def from_pretrained(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch: int | None = None,
        offload: str | None = None,
        quantize: str | None = None,
    ) -> Self:
        """Load a model, under settings that fit into the device.

        Args:
            model: a known name, a folder with config.json and safetensors, or
                `user/repo[@revision]` of the Hugging Face Hub.
            device: see `runtime.choose_device`.
            precision: see `runtime.choose_dtype`.
            batch: windows computed at once; by default as many as fit, up to 4 on a GPU.
            offload: what waits in main memory, a value of `memory.settings.Offload`; by default
                what must.
            quantize: how the transformer's matrices are stored, a value of
                `memory.settings.Quantize`; by default as they are, unless nothing else fits.

        Raises:
            WeightsError: no such model, or its files are missing or damaged.
            DeviceError: no such device or precision, no room for the model, or an option that
                this device cannot follow.
            ValueError: no such value.
        """
        from nsarm_cli.memory.planner import Wishes
        from nsarm_cli.memory.session import Session
        from nsarm_cli.memory.settings import Offload, Quantize
        from nsarm_cli.weights.families import load_text_encoder

        chosen, _ = choose_device(device)
        dtype, _ = choose_dtype(precision, chosen)
        wishes = Wishes(
            dtype,
            batch,
            None if offload is None else Offload(offload),
            None if quantize is None else Quantize(quantize),
        )
        session = Session.prepare(model, chosen, wishes)
        resolver, relief = session.load()
        return cls(
            resolver,
            chosen,
            batch=session.settings.batch,
            relief=relief,
            load_encoder=lambda: load_text_encoder(model, chosen, dtype),
        )

    @property
    def resolver(self) -> SuperResolver:
        """The model."""
        return self._resolver

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
        size: tuple[int, int] | None = None,
        seed: int = 0,
        prompt: str | Tensor | None = None,
        negative_prompt: str | Tensor | None = None,
        sampling: Sampling | None = None,
        color: str | None = None,
        on_progress: OnProgress | None = None,
        trace: Trace | None = None,
    ) -> Image.Image:
        """Enlarge one picture in memory.

        Args:
            image: any size and mode; it is taken as RGB, transparent parts on white.
            size: see `rows`; so are the others.
            seed: the same seed gives the same picture whatever the batch.
            prompt: what the picture shows, as text or as features from `encode`; by default the
                prompt that the model was tuned for.
            negative_prompt: what guidance pushes away from; without guidance it does nothing.
            sampling: temperature, top-p, guidance; by default the model's.
            color: a name of `imaging.color.METHODS`; by default the model's.
            on_progress: told of every scale of every batch.
            trace: when given, filled with tensors of the first window.

        Returns:
            An RGB picture of the wanted size.

        Raises:
            DeviceError: the device is out of memory.
            MemoryError: main memory is full.
            WeightsError: a prompt is text, and the model's text encoder is missing or damaged.
            ValueError: an unknown colour correction, a size out of range, or a prompt for a model
                without text.
        """
        rows = self.rows(
            to_rows(to_rgb(image)),
            size=size,
            seed=seed,
            prompt=prompt,
            negative_prompt=negative_prompt,
            sampling=sampling,
            color=color,
            on_progress=on_progress,
            trace=trace,
        )
        return from_rows(rows)

    def rows(
        self,
        lr: Rows,
        *,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        prompt: str | Tensor | None = None,
        negative_prompt: str | Tensor | None = None,
        sampling: Sampling | None = None,
        color: str | None = None,
        on_progress: OnProgress | None = None,
        trace: Trace | None = None,
    ) -> Rows:
        """Enlarge a picture that passes by, without ever holding all of it.

        Args:
            lr: RGB.
            size: (height, width) of the result in pixels, from 1 to `enlargement.MAX_SCALE` times
                that of the input on each axis; by default `scale` times. What the passes of the
                model make too large or too small is resized with a Lanczos filter.
            seed: every window draws from `runtime.window_generator(seed, index)`, so the same
                seed gives the same picture whatever the batch.
            prompt: what the picture shows, as text or as features from `encode`; by default the
                prompt that the model was tuned for.
            negative_prompt: what guidance pushes away from; without guidance it does nothing.
            sampling: temperature, top-p, guidance; by default the model's.
            color: a name of `imaging.color.METHODS`; by default the model's.
            on_progress: told of every scale of every batch.
            trace: when given, filled with tensors of the first window.

        Returns:
            RGB rows of the wanted size. The work happens while its strips are taken, and what
            goes wrong is raised there: a `DeviceError` if the device is out of memory, a
            `MemoryError` if main memory is full.

        Raises:
            WeightsError: a prompt is text, and the model's text encoder is missing or damaged.
            ValueError: an unknown colour correction, a size out of range, or a prompt for a model
                without text.
        """
        steps = self.steps(lr.height, lr.width, size)
        total = sum(self._pass.windows(height, width) for height, width in steps[:-1])
        report, done = on_progress or (lambda _: None), 0
        settings = PassSettings(
            seed,
            sampling or self.sampling,
            color or self._resolver.color,
            self._prompts.text(prompt, negative_prompt),
            trace=trace,
        )
        rows = lr
        for (height, width), (next_height, next_width) in itertools.pairwise(steps):
            on_windows = _after(done, total, report)
            rows = self._pass(rows, replace(settings, first_window=done, on_windows=on_windows))
            rows = resize_rows(rows, next_height, next_width)
            done += self._pass.windows(height, width)
            settings = replace(settings, trace=None)
        return rows

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode prompts, many at once, for `upscale`.

        Returns:
            For each prompt its features "m x", float32.

        Raises:
            WeightsError: the text encoder is missing or damaged.
            ValueError: the model takes no text.
        """
        return self._prompts.encode(prompts)

    def steps(
        self, height: int, width: int, size: tuple[int, int] | None = None
    ) -> list[tuple[int, int]]:
        """Plan the passes of the model; see `enlargement.plan_sizes`.

        Raises:
            ValueError: a size out of range.
        """
        return plan_sizes(height, width, size, self.scale)


def _pass_for(
    resolver: SuperResolver, device: torch.device, batch: int, relief: Relief | None
) -> Pass:
    if isinstance(resolver, JoinsLatents):
        return LatentPass(resolver, device, batch, relief)
    return PixelPass(resolver, device, batch, relief)


def _after(done: int, total: int, report: OnProgress) -> Callable[[float], None]:
    """Turn the windows of one pass into the share of the whole picture."""
    return lambda windows: report((done + windows) / total)
