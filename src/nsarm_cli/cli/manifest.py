"""The file of `--resume`: which pictures of a batch are done, one JSON line each.

A line "begun" is written before an output appears and a line "done" after, so that a run which
was killed in between can tell its own unfinished work from a file of the user's.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nsarm_cli.cli.outputs import Job
from nsarm_cli.errors import ImageError


class Manifest:
    """Finished pictures of earlier runs, and of this one.

    Args:
        path: of the file; it need not exist.

    Raises:
        ImageError: it cannot be read, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, Mapping[str, Any]] = {}
        self._begun: set[str] = set()
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, ValueError) as error:
            raise self._wrong(error) from error
        for line in lines:
            try:
                entry = json.loads(line)
                output, state = entry["output"], entry["state"]
                if state == "done":
                    self._done[output] = entry["of"]
                self._begun.add(output)
            except (ValueError, LookupError, TypeError) as error:
                if line.startswith('{"'):
                    continue  # cut short when a run was killed
                raise self._wrong(error) from error

    @property
    def outputs(self) -> frozenset[Path]:
        """Outputs that this batch has made or was making."""
        return frozenset(map(Path, self._begun))

    def remaining(
        self, jobs: Sequence[Job], settings: Callable[[Job], Mapping[str, Any]]
    ) -> list[Job]:
        """Leave out jobs whose output was made from the same input under the same settings."""
        return [job for job in jobs if not self._is_done(job, settings(job))]

    def begin(self, job: Job) -> None:
        """Note that the outputs of a job are about to appear."""
        for path in job.outputs:
            self._append({"output": str(path.absolute()), "state": "begun"})

    def finish(self, job: Job, settings: Mapping[str, Any]) -> None:
        """Note that an output is there."""
        entry = {"output": str(job.target.absolute()), "state": "done", "of": _facts(job, settings)}
        self._append(entry)

    def _is_done(self, job: Job, settings: Mapping[str, Any]) -> bool:
        known = self._done.get(str(job.target.absolute()))
        return known is not None and known == _facts(job, settings)

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            with self._path.open("a+b") as file:
                # A line that was cut short must not swallow the next one.
                if file.tell() and not _ends_a_line(self._path):
                    file.write(b"\n")
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ImageError(
                f"{self._path}: cannot be written ({error.strerror or error}); "
                "give --resume another file"
            ) from error

    def _wrong(self, error: Exception) -> ImageError:
        return ImageError(f"{self._path}: is not a file of --resume ({error}); give another name")


def _facts(job: Job, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What must be the same for an output to be current; None where a file is missing."""
    try:
        source, target = job.source.stat(), job.target.stat()
    except OSError:
        return None
    facts = {
        "input": str(job.source.absolute()),
        "input_bytes": source.st_size,
        "input_mtime_ns": source.st_mtime_ns,
        "output_bytes": target.st_size,
        "settings": settings,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(facts))
    return as_read


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
