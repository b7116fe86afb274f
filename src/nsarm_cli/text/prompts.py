"""Which prompt belongs to which picture: prompt files and texts beside the pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from nsarm_cli.errors import ConfigError

_LARGEST_BYTES = 256 * 2**20
"""A prompt file beyond this is not one."""


@dataclass(frozen=True)
class PromptFile:
    """Captions of pictures, found by the pictures' names.

    Attributes:
        path: of the file.
        entries: by file name, the parts of each picture's path, last first, and its caption.
    """

    path: Path
    entries: Mapping[str, Sequence[tuple[tuple[str, ...], str]]]

    def find(self, picture: Path) -> str | None:
        """The caption of a picture, or None.

        The file name must agree; where several lines have that name, the one with the longest
        common end of the path counts, so `a/1.png` and `b/1.png` are told apart.

        Raises:
            ConfigError: several lines fit equally well and say different things.
        """
        wanted = _reversed_parts(picture.absolute())
        best, captions = 0, set[str]()
        for parts, caption in self.entries.get(picture.name, ()):
            common = _common(parts, wanted)
            if common > best:
                best, captions = common, set()
            if common == best:
                captions.add(caption)
        if len(captions) > 1:
            raise ConfigError(
                f"{self.path}: has {len(captions)} different captions for {picture.name}; "
                "keep one, or give more of the path in image_path"
            )
        return captions.pop() if captions else None


def read_prompt_file(path: Path) -> PromptFile:
    """Read a prompt file: JSON objects with `image_path` and `long_caption`, one a line.

    Paths may be of another machine: only their ends count. Other keys are passed over.

    Raises:
        ConfigError: the file cannot be read, or names the line that is wrong.
    """
    entries: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            name, caption = values["image_path"], values["long_caption"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise _wrong(path, number) from error
        if not isinstance(name, str) or not isinstance(caption, str):
            raise _wrong(path, number)
        parts = _reversed_parts(PureWindowsPath(name) if "\\" in name else PurePath(name))
        if not parts:
            raise _wrong(path, number)
        entries.setdefault(parts[0], []).append((parts, caption))
    return PromptFile(path, entries)


def read_sidecar(picture: Path) -> str | None:
    """The text of `photo.txt` beside `photo.jpg`, or None where there is none.

    Raises:
        ConfigError: there is one and it cannot be read.
    """
    path = picture.with_suffix(".txt")
    return _read_text(path).strip() if path.exists() else None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(f"{path}: is too large to be a file of prompts; give another")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except UnicodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from error


def _wrong(path: Path, line: int) -> ConfigError:
    return ConfigError(
        f'{path}: line {line} is not a JSON object with texts "image_path" and "long_caption"; '
        "mend it there"
    )


def _reversed_parts(path: PurePath) -> tuple[str, ...]:
    return tuple(reversed(path.parts))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items agree from the beginning."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
