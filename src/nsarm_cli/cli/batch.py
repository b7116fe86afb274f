"""The pictures of a run: while one is computed, the next is read and the last is written.

A bad picture never stops the others. An interruption discards the picture that is being computed
and lets one whose rows are all there be written.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from nsarm_cli.cli import console
from nsarm_cli.cli.background import Background
from nsarm_cli.cli.manifest import Manifest
from nsarm_cli.cli.outputs import Job
from nsarm_cli.cli.report import Reporter
from nsarm_cli.cli.settings import Settings
from nsarm_cli.cli.trace import write_trace
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from nsarm_cli.imaging.picture import Picture
    from nsarm_cli.pipeline import Upscaler

_AHEAD = 32_000_000
"""Pixels above which a picture is not read while the one before it is computed."""


@dataclass
class _Running:
    """A picture whose rows are all computed, while its file is being written."""

    job: Job
    writer: "Background[Tensor]"
    began: float
    facts: dict[str, Any]


@dataclass
class Batch:
    """A run.

    Attributes:
        load: reads the model; called when the first picture has been read, since broken
            pictures need none.
        settings: for all pictures.
        reporter: told of every picture.
        manifest: of `--resume`, or None.
    """

    load: "Callable[[], Upscaler]"
    settings: Settings
    reporter: Reporter
    manifest: Manifest | None = None
    _writing: _Running | None = field(default=None, init=False)

    @cached_property
    def upscaler(self) -> "Upscaler":
        """The model."""
        upscaler = self.load()
        self.settings.words.check(upscaler.resolver)
        self.settings.steering.check(upscaler.resolver)
        return upscaler

    def run(self, jobs: Sequence[Job]) -> int:
        """Make all pictures.

        Returns:
            How many failed.
        """
        with (
            ThreadPoolExecutor(1, "reader") as reader,
            console.progress_bar(len(jobs)) as bar,
            self.reporter.on(bar, len(jobs)),
        ):
            ahead: Future[Picture] | None = None
            try:
                for index, job in enumerate(jobs):
                    reading, ahead = ahead or reader.submit(_read, job), None
                    try:
                        picture = reading.result()
                        if index + 1 < len(jobs) and _is_small(jobs[index + 1]):
                            ahead = reader.submit(_read, jobs[index + 1])
                        count = f" ({index + 1} of {len(jobs)})" if len(jobs) > 1 else ""
                        show = bar.begin(index, job.source.name + count)
                        with _fitting(job):
                            running = self._compute(job, picture, show)
                    except ImageError as error:
                        self._settle()
                        self.reporter.failed(job, error)
                    else:
                        self._settle()
                        self._writing = running
                self._settle()
            except (KeyboardInterrupt, SystemExit):
                self._settle()
                raise
        return self.reporter.failures

    def _compute(self, job: Job, picture: "Picture", show: Callable[[float], None]) -> _Running:
        """Compute all rows of a picture; its file is written meanwhile.

        Raises:
            ImageError: it is too large, or cannot be written.
        """
        import torch

        from nsarm_cli.imaging.comparison import Comparison
        from nsarm_cli.imaging.formats import check_size, output_format
        from nsarm_cli.imaging.layout import finish, layout_for
        from nsarm_cli.imaging.output import write_picture
        from nsarm_cli.imaging.rows import STRIP, Rows

        settings, upscaler = self.settings, self.upscaler
        width, height = settings.size.of(job.source, picture.width, picture.height, upscaler.scale)
        check_size(job.target, width, height)
        layout, lost = layout_for(picture, width, height, output_format(job.target))
        self.reporter.notes(job, (*picture.notes, *lost))
        comparison = None if job.comparison is None else Comparison(picture, layout)
        if self.manifest is not None:
            self.manifest.begin(job)

        def facts() -> dict[str, Any]:
            return settings.facts(job, upscaler, (picture.width, picture.height), (width, height))

        def write(strips: "Iterator[Tensor]") -> None:
            with _fitting(job):
                finish_and_write(strips)

        def finish_and_write(strips: "Iterator[Tensor]") -> None:
            # Until the first rows are there, a full device may still change the settings.
            first = next(strips)
            recorded = facts()["settings"]
            finished = finish(picture, Rows(height, width, chain([first], strips)), layout)
            if comparison is not None:
                finished = comparison.watch(finished)
            write_picture(
                job.target,
                settings.describe(layout, recorded),
                finished,
                overwrite=job.overwrite,
                quality=settings.quality,
            )
            if comparison is not None and job.comparison is not None:
                sheet = settings.describe(comparison.layout, recorded)
                title = f"{job.source.name}, {settings.model}"
                comparison.write(job.comparison, sheet, title, overwrite=job.overwrite)

        def on_progress(share: float) -> None:
            show(share)
            if self._writing is not None and self._writing.writer.is_done():
                self._settle()

        tensors: dict[str, Tensor] | None = None if settings.trace is None else {}
        began = time.perf_counter()
        writer: Background[Tensor] = Background(write)
        try:
            rows = upscaler.rows(
                picture.rows(),
                size=(height, width),
                seed=settings.seed,
                prompt=settings.words.prompt(job.source),
                negative_prompt=settings.words.negative,
                sampling=settings.sampling(upscaler.sampling),
                color=settings.color,
                on_progress=on_progress,
                trace=tensors,
            )
            for band in rows.strips:
                # As high as windows are; finishing and packing rows takes many times their bytes.
                for strip in torch.split(band, STRIP, dim=1):
                    writer.put(strip)
            writer.close()
            if settings.trace is not None and tensors is not None:
                known = {"input": job.source.name, "seed": settings.seed}
                known["sampling"] = settings.sampling(upscaler.sampling)
                known |= settings.words.facts(job.source)
                write_trace(tensors, settings.trace, known, overwrite=settings.overwrite_trace)
        except BaseException:
            writer.cancel()
            raise
        return _Running(job, writer, began, facts())

    def _settle(self) -> None:
        """Wait until the last picture is written, and report it."""
        running, self._writing = self._writing, None
        if running is None:
            return
        try:
            running.writer.result()
            if self.manifest is not None:
                self.manifest.finish(running.job, self.settings.key(running.job))
        except ImageError as error:
            self.reporter.failed(running.job, error)
            return
        seconds = time.perf_counter() - running.began
        self.reporter.made(running.job, {**running.facts, "seconds": round(seconds, 3)})


def _read(job: Job) -> "Picture":
    from nsarm_cli.imaging.picture import read_picture

    with _fitting(job):
        return read_picture(job.source)


@contextmanager
def _fitting(job: Job) -> Iterator[None]:
    """Turn a full main memory into the error of a picture; the next one may fit."""
    from nsarm_cli.shortage import told_apart

    try:
        with told_apart():
            yield
    except MemoryError as error:
        raise ImageError(
            f"{job.source}: does not fit in memory; close other programs, shrink it first, or "
            "write .png or .tif"
        ) from error


def _is_small(job: Job) -> bool:
    """Whether two such pictures may be in memory."""
    from nsarm_cli.imaging.opening import opened

    try:
        with opened(job.source) as image:
            return image.width * image.height <= _AHEAD
    except ImageError:
        return True  # reading it will say why
