"""What is known of a training picture before it is read: where its bytes and its words are.

A record holds no text and no pixels, so a list of a million stays small.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from nsarm_cli.errors import ImageError


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a byte range of one.

    Attributes:
        path: of the file.
        offset: of the first byte.
        size: number of bytes; None reads to the end.
    """

    path: str
    offset: int = 0
    size: int | None = None

    def read(self, most: int | None = None) -> bytes:
        """The bytes, or the first `most` of them.

        Raises:
            OSError: the file cannot be read.
        """
        sizes = [size for size in (self.size, most) if size is not None]
        with open(self.path, "rb") as file:  # noqa: PTH123  (a million paths stay strings)
            file.seek(self.offset)
            return file.read(min(sizes)) if sizes else file.read()


@dataclass(frozen=True, slots=True)
class Captions:
    """What a picture shows, in words; either may be empty."""

    long: str = ""
    short: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One training picture.

    Attributes:
        picture: its encoded bytes.
        name: for messages; a shard's member or a file name.
        words: its captions, or None.
        form: how `words` is written: plain text, or JSON with the base project's keys.
        ratio: height by width as a list claims it, or None.
    """

    picture: Piece
    name: str
    words: Piece | None = None
    form: Literal["text", "json"] = "text"
    ratio: float | None = None

    def captions(self) -> Captions:
        """Read the captions; without any they are empty.

        Raises:
            ImageError: they are there and cannot be read.
        """
        if self.words is None:
            return Captions()
        try:
            text = self.words.read().decode("utf-8-sig")
            return Captions(text.strip()) if self.form == "text" else captions_of(json.loads(text))
        except (OSError, ValueError, RecursionError) as error:
            raise ImageError(
                f"{self.words.path}: the captions of {self.name} cannot be read ({error}); "
                "mend or remove them"
            ) from error

    def where(self) -> str:
        """File and name, for messages."""
        return f"{self.picture.path}: {self.name}"


def captions_of(values: Any) -> Captions:
    """Captions from an object with the base project's keys `long_caption` and `text`.

    Raises:
        ValueError: it is no object, or a caption is no text.
    """
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (a fault of the file)
    found = [values.get(key) or "" for key in ("long_caption", "text")]
    if not all(isinstance(text, str) for text in found):
        raise ValueError("a caption is not a text")
    return Captions(*(text.strip() for text in found))
