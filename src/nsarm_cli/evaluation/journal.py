"""Values that were measured before, kept by the content of the pictures that they are of.

One line of JSON per value, added as soon as it is known: what an interrupted run has measured
is there for the next. A line that was cut short is passed over. Every process has a file of its
own, and all read all.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import Self

from nsarm_cli.evaluation.measures import Measure
from nsarm_cli.imaging.atomic import unwritable


class Journal:
    """Measured values, in a folder.

    Args:
        folder: made if it is missing.
        rank: number of this process; its lines go to a file of that number.

    Raises:
        ImageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._values: dict[str, float | None] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("measures-*.jsonl")):
                self._read(path)
            self._file = (folder / f"measures-{rank}.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise unwritable(folder, error) from error
        if self._file.tell():  # a line cut short must not swallow the next one
            self._file.write("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> float | None:
        return self._values[key]

    def add(self, values: dict[str, float | None]) -> None:
        """Keep values by their keys.

        Raises:
            ImageError: the disk refuses them.
        """
        self._values |= values
        lines = (json.dumps({"key": k, "value": v}) for k, v in values.items())
        try:
            self._file.write("".join(f"{line}\n" for line in lines))
            self._file.flush()
        except OSError as error:
            raise unwritable(Path(self._file.name), error) from error

    def _read(self, path: Path) -> None:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._values[entry["key"]] = entry["value"]
            except (ValueError, TypeError, KeyError):
                continue


def key_of(measure: Measure, sr: str, gt: str | None, lr: str | None) -> str:
    """Name a value by all that it depends on.

    Args:
        measure: with its version.
        sr: `pictures.pixel_digest` of the output as it is judged.
        gt: of the reference.
        lr: of the input of the set.
    """
    parts = [measure.name, measure.version, sr]
    parts += [gt or ""] if "gt" in measure.needs else []
    parts += [lr or ""] if "lr" in measure.needs else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
