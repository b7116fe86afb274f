"""What a run says about its pictures: paths or JSON on stdout, sentences on stderr."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nsarm_cli.cli import console
from nsarm_cli.cli.outputs import Job
from nsarm_cli.errors import ImageError


@dataclass
class Reporter:
    """Tells of pictures as they are done.

    Attributes:
        as_json: one JSON object per picture on stdout in place of the path.
        resumes: the same command goes on where it was stopped.
        failures: pictures that failed.
    """

    as_json: bool = False
    resumes: bool = False
    failures: int = field(default=0, init=False)
    _made: int = field(default=0, init=False)
    _bar: console.Bar | None = field(default=None, init=False)

    @contextmanager
    def on(self, bar: console.Bar, total: int) -> Iterator[None]:
        """Print around a progress bar, and sum up at the end.

        Args:
            bar: hidden while lines are printed.
            total: pictures of the run.
        """
        self._bar = bar
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if total > 1:
                how = "" if self.resumes else " with --skip-existing"
                self._say(
                    f"stopped after {self._made} of {total} pictures; the same command{how} does "
                    "the others"
                )
            raise
        if self.failures and total > 1:
            self._say(f"{self.failures} of {total} pictures failed")

    def notes(self, job: Job, notes: Sequence[str]) -> None:
        """Tell what a person should know of a picture; each note lacks its subject."""
        for note in notes:
            self._say(f"{job.source}: {note}")

    def made(self, job: Job, facts: dict[str, Any]) -> None:
        """Tell of a finished picture.

        Args:
            job: input and output.
            facts: with "input_size", "output_size" and "seconds".
        """
        self._made += 1
        before, after = ("{}x{}".format(*facts[key]) for key in ("input_size", "output_size"))
        line = f"{job.source}: {before} -> {after} in {facts['seconds']:.1f} s"
        if job.comparison is not None:
            line += f"; before and after: {job.comparison[1]}"
            facts = {**facts, "comparison": [str(path) for path in job.comparison]}
        if self.as_json:
            self._say(line, _json(job, "made", facts))
        else:
            self._say(line, str(job.target))

    def failed(self, job: Job, error: ImageError) -> None:
        """Tell of a picture that failed."""
        self.failures += 1
        facts = {"error": str(error)}
        self._say(f"error: {error}", _json(job, "failed", facts) if self.as_json else None)

    def _say(self, line: str, result: str | None = None) -> None:
        assert self._bar is not None  # noqa: S101 (set while pictures are made)
        with self._bar.hidden():
            console.say(line)
            if result is not None:
                console.result(result)


def _json(job: Job, outcome: str, facts: dict[str, Any]) -> str:
    named = {"input": str(job.source), "output": str(job.target), "outcome": outcome}
    return json.dumps(named | facts, ensure_ascii=True)
