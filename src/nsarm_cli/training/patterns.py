"""What `--data` may say: paths, globs, brace patterns, URLs and commands."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import ConfigError

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


@dataclass(frozen=True)
class Sources:
    """Where pictures are.

    Attributes:
        paths: files and folders of this machine.
        streams: shards elsewhere: "http://...", "https://..." or "pipe:COMMAND".
    """

    paths: tuple[Path, ...]
    streams: tuple[str, ...]


def find_sources(words: Sequence[str]) -> Sources:
    """Sort out what `--data` says.

    Args:
        words: each a path, a glob such as `shards/*.tar`, a URL of a tar shard, or "pipe:" and
            a command that writes one; `{000..012}` and `{a,b}` stand for several.

    Raises:
        ConfigError: a glob matches nothing, or shards from elsewhere are mixed with paths.
    """
    paths: list[Path] = []
    streams: list[str] = []
    for word in words:
        if is_stream(word):
            streams += braces(word)
        elif Path(word).exists():
            paths.append(Path(word))
        else:
            for name in braces(word):
                paths += _globbed(name)
    if paths and streams:
        raise ConfigError(
            f"{paths[0]} is of this machine and {shown(streams[0])} is not; give one kind of --data"
        )
    return Sources(tuple(paths), tuple(streams))


def is_stream(word: str) -> bool:
    """Whether a word of `--data` names a shard elsewhere."""
    return word.startswith(("http://", "https://", "pipe:"))


def shown(word: str) -> str:
    """A word of `--data` as messages show it.

    Of an address the user, the query and the fragment stay away: they may be secrets, and messages
    end up in logs.
    """
    if word.startswith("pipe:") or not is_stream(word):
        return word
    return re.sub("//[^/]*@", "//", re.split("[?#]", word, maxsplit=1)[0], count=1)


def braces(word: str) -> list[str]:
    """Expand `{a,b}` and `{000..012}`, the leftmost slowest; other braces stay.

    Raises:
        ConfigError: it stands for more than a million words.
    """
    match = next((m for m in _BRACES.finditer(word) if _choices(m[1]) is not None), None)
    if match is None:
        return [word]
    choices = _choices(match[1]) or []
    rests = braces(word[match.end() :])
    if len(choices) * len(rests) > _MOST:
        raise ConfigError(f"{shown(word)}: stands for more than {_MOST} names; give fewer")
    return [word[: match.start()] + choice + rest for choice in choices for rest in rests]


def _choices(inside: str) -> list[str] | None:
    numbers = _NUMBERS.fullmatch(inside)
    if numbers:
        low, high = int(numbers[1]), int(numbers[2])
        if abs(high - low) >= _MOST:
            raise ConfigError(f"{{{inside}}}: stands for more than {_MOST} names; give fewer")
        width = max(map(len, numbers.groups())) if inside[0] == "0" else 0
        step = 1 if low <= high else -1
        return [str(number).zfill(width) for number in range(low, high + step, step)]
    return inside.split(",") if "," in inside else None


def _globbed(name: str) -> list[Path]:
    if not glob.has_magic(name) or Path(name).exists():
        return [Path(name)]
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  (takes absolute patterns)
    if not found:
        raise ConfigError(f"{name}: nothing matches; give the training pictures with --data")
    return [Path(path) for path in found]
