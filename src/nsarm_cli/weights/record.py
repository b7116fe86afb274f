"""What is remembered of files once read: their digests, and what the check said.

A record lies in the folder of the files. It holds each file's size and time of change, so that
`list` is instant, and a file that was changed since is known to be unchecked.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECORD_NAME = ".nsarm-record.json"
VERIFIED, UNCHECKED, DAMAGED = "verified", "unchecked", "damaged"

_VERSION = 1
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stamp:
    """What was found when a file was last read whole.

    Attributes:
        size: bytes.
        mtime_ns: time of the last change, in nanoseconds.
        verdict: VERIFIED against a digest, UNCHECKED for want of one, or DAMAGED.
        digests: by algorithm, of the content as read.
        source: where it came from, for people.
    """

    size: int
    mtime_ns: int
    verdict: str
    digests: dict[str, str]
    source: str

    def fits(self, path: Path) -> bool:
        """Whether the file still is the one that was read."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True)
class JoinStamp:
    """What was found when parts were last read one after the other.

    Attributes:
        parts: SHA-256 of each by its name, in order.
        verdict: as of a `Stamp`.
        digests: of the joined content.
    """

    parts: dict[str, str]
    verdict: str
    digests: dict[str, str]


@dataclass
class Record:
    """The stamps of one folder.

    Attributes:
        files: by path relative to the folder.
        joins: by the path of the file that the parts make.
        listings: names of all the parts, by the path of the file, where a source listed them.
    """

    files: dict[str, Stamp] = field(default_factory=dict)
    joins: dict[str, JoinStamp] = field(default_factory=dict)
    listings: dict[str, tuple[str, ...]] = field(default_factory=dict)


def stamp(path: Path, verdict: str, digests: dict[str, str], source: str) -> Stamp:
    """Describe a file as it lies on disk now."""
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns, verdict, digests, source)


def read_record(folder: Path) -> Record:
    """Read the record of a folder; none or a damaged one is an empty record."""
    path = folder / RECORD_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _from_values(values)
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        # Nothing is lost: the files are there, and `verify` reads them again.
        _LOGGER.warning("%s: ignored, since it cannot be read (%s)", path, error)
        return Record()


def _from_values(values: dict[str, Any]) -> Record:
    if values["version"] != _VERSION:
        raise ValueError(f"version {values['version']}")
    return Record(
        {name: Stamp(**fields) for name, fields in values["files"].items()},
        {name: JoinStamp(**fields) for name, fields in values["joins"].items()},
        {name: tuple(names) for name, names in values["listings"].items()},
    )


def write_record(folder: Path, record: Record) -> None:
    """Replace the record of a folder; an interruption leaves the old one.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / RECORD_NAME
    text = json.dumps({"version": _VERSION, **asdict(record)}, indent=1)
    temporary = path.with_name(f"{RECORD_NAME}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
