"""Files that come in parts: their order, what is missing, and why a join can be wrong.

`split` names parts `_aa`, `_ab`... or `_00`, `_01`...; `cat NAME_*` joins them in that order.
"""

import re
from collections.abc import Sequence
from pathlib import Path

_ZIP_BEGINS = b"PK\x03\x04"
_ZIP_ENDS = b"PK\x05\x06"
_ZIP_TAIL = 65_557
"""Bytes at the end of a zip archive in which its last record begins."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort numbers in a name by their value, so that part 10 follows part 9."""
    pieces = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), p) if p.isdigit() else (1, 0, p) for p in pieces)


def missing_between(names: Sequence[str], pattern: str) -> list[str]:
    """Name the parts that the others show to be missing, up to ten of them.

    Args:
        names: of the parts that are there.
        pattern: of all parts, ending in "*".

    Returns:
        Names between the first possible and the last present; empty where the names' endings
        are no count, as then nothing can be told. A missing last part cannot be seen.
    """
    prefix = pattern[:-1]
    endings = {name.removeprefix(prefix) for name in names}
    if not endings or any(not re.fullmatch("[0-9]+|[a-z]+", ending) for ending in endings):
        return []
    widths = {len(ending) for ending in endings}
    if len({ending.isdigit() for ending in endings}) > 1:
        return []
    if all(ending.isdigit() for ending in endings):
        numbers = {int(ending) for ending in endings}
        width = min(widths) if len(widths) == 1 else 0
        # Some count from 0 and some from 1.
        gaps = [n for n in range(min(1, *numbers, 1), max(numbers)) if n not in numbers]
        return [f"{prefix}{n:0{width}d}" for n in gaps[:10]]
    if len(widths) > 1:
        return []
    (width,) = widths
    letters = {_to_number(ending) for ending in endings}
    gaps = [n for n in range(max(letters)) if n not in letters][:10]
    return [prefix + _to_letters(n, width) for n in gaps]


def explain_join(parts: Sequence[Path]) -> str:
    """Say what is likely wrong with parts whose join has another digest than it should.

    A checkpoint is a zip archive: its first bytes and its last tell which part is which.

    Args:
        parts: in the order in which they were joined; at least one.

    Returns:
        The reason in a clause.
    """
    for place, part in enumerate(parts[1:], start=2):
        if _begins(part) and not _begins(parts[0]):
            return (
                f"{part.name} begins as a first part does but is number {place}, "
                "so the parts are named in the wrong order"
            )
    sizes = [part.stat().st_size for part in parts]
    for part, size in zip(parts[1:-1], sizes[1:-1], strict=True):
        if size != sizes[0]:
            return (
                f"{part.name} has {size} bytes and {parts[0].name} {sizes[0]}, "
                "so one of them is cut, or the parts are in the wrong order"
            )
    if _begins(parts[0]) and not _ends(parts[-1]):
        return (
            f"{parts[-1].name} does not end as a last part does, "
            "so parts are missing after it or it is cut"
        )
    return "a part is damaged, missing at the end, or of another release"


def _to_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a")
    return number


def _to_letters(number: int, width: int) -> str:
    letters = ""
    for _ in range(width):
        number, rest = divmod(number, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def _begins(part: Path) -> bool:
    with part.open("rb") as file:
        return file.read(len(_ZIP_BEGINS)) == _ZIP_BEGINS


def _ends(part: Path) -> bool:
    with part.open("rb") as file:
        file.seek(max(0, part.stat().st_size - _ZIP_TAIL))
        return _ZIP_ENDS in file.read()
