"""Several files at once: threads that hear Ctrl-C; a failure ends the others or waits for them."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from threading import Event
from typing import TypeVar

from nsarm_cli.errors import WeightsError

_POLL_S = 0.2
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Threads that do the same to several items.

    Args:
        count: of the threads, at least 1.

    Attributes:
        cancel: set when the work is to end early; what runs in a thread looks at it.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="nsarm-download")
        self._failures: list[WeightsError] = []
        self.cancel = Event()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel.set()
        self._pool.shutdown(cancel_futures=True)

    def run(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """Call a function with each item, and return what came of those that did not fail.

        Failures are kept for `raise_failures`.
        """
        futures = [self._pool.submit(function, item) for item in items]
        try:
            while wait_for(futures, timeout=_POLL_S).not_done:
                pass  # in short waits, so that Ctrl-C is heard on every system
        except BaseException:
            self.cancel.set()
            raise
        results = []
        for future in futures:
            try:
                results.append(future.result())
            except WeightsError as error:
                self._failures.append(error)
        return results

    def run_or_fail(self, function: Callable[[_Item], object], items: Sequence[_Item]) -> None:
        """Call a function with each item; the first failure ends the work and is raised."""
        waiting: set[Future[object]] = {self._pool.submit(function, item) for item in items}
        try:
            while waiting:
                done, waiting = wait_for(waiting, _POLL_S, FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            self.cancel.set()
            raise

    def raise_failures(self) -> None:
        """Raise what failed, in one error.

        Raises:
            WeightsError: something did.
        """
        if len(self._failures) == 1:
            raise self._failures[0]
        if self._failures:
            reasons = "; ".join(f"({n}) {e}" for n, e in enumerate(self._failures, start=1))
            raise WeightsError(f"{len(self._failures)} files could not be had: {reasons}")
