"""The pictures of a run one after the other; a bad one never stops the others."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nsarm_cli.cli import console
from nsarm_cli.cli.outputs import Job
from nsarm_cli.cli.prompts import Words
from nsarm_cli.cli.steering import Steering
from nsarm_cli.cli.trace import write_trace
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from nsarm_cli.models.interface import Sampling
    from nsarm_cli.pipeline import Upscaler


@dataclass(frozen=True)
class Settings:
    """What is done with each picture.

    Attributes:
        seed: the user's.
        temperature: None for the model's; so are the next two.
        top_p: share of probability.
        color: a name of `imaging.color.METHODS`.
        words: prompts of the pictures, and guidance.
        steering: strength of the guidance, and the refiner.
        trace: where the first window's tensors go, or None.
        overwrite: outputs that exist may be replaced.
    """

    seed: int
    temperature: float | None
    top_p: float | None
    color: str | None
    words: Words
    steering: Steering
    trace: Path | None
    overwrite: bool

    def sampling(self, tuned: "Sampling") -> "Sampling":
        """The model's settings with those that were asked for."""
        if self.temperature is not None:
            tuned = replace(tuned, temperature=self.temperature)
        if self.top_p is not None:
            tuned = replace(tuned, top_p=self.top_p)
        return self.steering.guide(self.words.guide(tuned))


@dataclass(frozen=True)
class Batch:
    """A run.

    Attributes:
        load: reads the model; called when the first picture has been read, since broken
            pictures need none.
        settings: for all pictures.
    """

    load: "Callable[[], Upscaler]"
    settings: Settings

    @cached_property
    def upscaler(self) -> "Upscaler":
        """The model."""
        upscaler = self.load()
        self.settings.words.check(upscaler.resolver)
        self.settings.steering.check(upscaler.resolver)
        return upscaler

    def run(self, jobs: Sequence[Job]) -> int:
        """Make all pictures; print the path of each on stdout and a line about it on stderr.

        Returns:
            How many failed.
        """
        failures = 0
        with console.progress_bar(len(jobs)) as bar:
            for index, job in enumerate(jobs):
                count = f" ({index + 1} of {len(jobs)})" if len(jobs) > 1 else ""
                on_progress = bar.begin(index, job.source.name + count)
                try:
                    summary = self._enlarge(job, on_progress)
                except ImageError as error:
                    failures += 1
                    with bar.hidden():
                        console.error(str(error))
                else:
                    with bar.hidden():
                        console.say(summary)
                        console.result(str(job.target))
        if failures and len(jobs) > 1:
            console.say(f"{failures} of {len(jobs)} pictures failed")
        return failures

    def _enlarge(self, job: Job, on_progress: Callable[[float], None]) -> str:
        """Read, enlarge and write one picture.

        Returns:
            A line about it.

        Raises:
            ImageError: it cannot be read or written.
        """
        from nsarm_cli.imaging.formats import check_size, output_format
        from nsarm_cli.imaging.layout import finish, layout_for
        from nsarm_cli.imaging.output import write_picture
        from nsarm_cli.imaging.picture import read_picture

        settings = self.settings
        picture = read_picture(job.source)
        width, height = (self.upscaler.scale * side for side in (picture.width, picture.height))
        check_size(job.target, width, height)
        layout, lost = layout_for(picture, width, height, output_format(job.target))
        for note in (*picture.notes, *lost):
            console.say(f"{job.source}: {note}")
        sampling = settings.sampling(self.upscaler.sampling)
        tensors: dict[str, Tensor] | None = None if settings.trace is None else {}
        began = time.perf_counter()
        rows = self.upscaler.rows(
            picture.rows(),
            seed=settings.seed,
            prompt=settings.words.prompt(job.source),
            negative_prompt=settings.words.negative,
            sampling=sampling,
            color=settings.color,
            on_progress=on_progress,
            trace=tensors,
        )
        strips = finish(picture, rows, layout)
        write_picture(job.target, layout, strips, overwrite=settings.overwrite)
        seconds = time.perf_counter() - began
        if settings.trace is not None and tensors is not None:
            facts = {"input": job.source.name, "seed": settings.seed, "sampling": sampling}
            facts |= settings.words.facts(job.source)
            write_trace(tensors, settings.trace, facts, overwrite=settings.overwrite)
        size = f"{picture.width}x{picture.height}"
        return f"{job.source}: {size} -> {width}x{height} in {seconds:.1f} s"
