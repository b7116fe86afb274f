"""What is told of long work on files."""

from typing import Protocol


class Watcher(Protocol):
    """Follows files as they are fetched, copied or read; called from several threads."""

    def begin(self, name: str, total: int | None) -> None:
        """A file begins; `total` is its size in bytes where that is known."""

    def advance(self, name: str, count: int) -> None:
        """Further bytes of it are done; a negative number takes some back."""

    def end(self, name: str, outcome: str) -> None:
        """It has ended: "verified", "unchecked" (there is no digest to compare) or "failed"."""
