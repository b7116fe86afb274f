"""A watcher for tests that do not look at progress."""


class Silent:
    """A watcher that does nothing."""

    def begin(self, name: str, total: int | None) -> None:
        pass

    def advance(self, name: str, count: int) -> None:
        pass

    def end(self, name: str, outcome: str) -> None:
        pass
