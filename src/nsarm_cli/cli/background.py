"""Work on a stream of pieces in a thread, while they are still being made."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_WAIT = 0.1  # seconds between looks at whether the other side is still there


class _CancelledError(Exception):
    """Raised in the thread in place of the next piece."""


class Background(Generic[T]):
    """A thread that takes pieces as they come.

    Args:
        consume: what the thread does with the pieces; when the work is cancelled, its iterator
            raises, so that it cleans up as after any error.
        ahead: pieces that may wait.
    """

    def __init__(self, consume: Callable[[Iterator[T]], None], *, ahead: int = 2) -> None:
        self._pieces: queue.Queue[T | None] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self._is_cancelled = False
        self._consume = consume
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, piece: T) -> None:
        """Hand over a piece; waits while too many wait. Raises what the thread raised."""
        self._put(piece)

    def close(self) -> None:
        """Say that there are no more pieces."""
        self._put(None)

    def is_done(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def result(self) -> None:
        """Wait for the end, after `close`, and raise what the thread raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Stop the thread and wait until it has cleaned up."""
        self._is_cancelled = True
        self._thread.join()

    def _put(self, piece: T | None) -> None:
        while self._thread.is_alive():
            try:
                self._pieces.put(piece, timeout=_WAIT)
            except queue.Full:
                continue
            return
        self.result()

    def _iterate(self) -> Iterator[T]:
        while True:
            if self._is_cancelled:
                raise _CancelledError
            try:
                piece = self._pieces.get(timeout=_WAIT)
            except queue.Empty:
                continue
            if piece is None:
                return
            yield piece

    def _run(self) -> None:
        try:
            self._consume(self._iterate())
        except _CancelledError:
            pass
        except BaseException as error:
            self._error = error
