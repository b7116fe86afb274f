"""Fetching one file over HTTP: resumed, bounded, hashed while it streams."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from nsarm_cli.weights.digests import Digests, read_through
from nsarm_cli.weights.remote import Remote, SourceError, Transfer, writing

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before further attempts; as many attempts in a row may bring no byte."""

_LONGEST_WAIT_S = 60
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


class _BrokenError(Exception):
    """An attempt failed in a way that another may not; `wait_s` is what the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class HttpRemote(Remote):
    """A file at an address.

    It is asked for through the session of huggingface_hub, so that its settings hold for every
    download: proxies, certificates, `HF_HUB_OFFLINE`. The library's own download keeps nothing
    of an interrupted file and does not hash, hence this one.
    """

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def receive(
        self, partial: Path, algorithms: Iterable[str], transfer: Transfer, *, resume: bool
    ) -> dict[str, str]:
        """See `Remote.receive`."""
        names = tuple(algorithms)
        with writing(partial):
            file = partial.open("ab" if resume else "wb")
        try:
            with file:
                sink = _Sink(file, partial, names, self.size, transfer)
                self._fill(sink, transfer)
                sink.close()
        except BaseException:
            if partial.stat().st_size == 0:  # nothing came: leave no trace of it
                partial.unlink()
            raise
        return sink.digests.values()

    def _fill(self, sink: "_Sink", transfer: Transfer) -> None:
        failures = most = 0
        while True:
            try:
                self._attempt(sink, transfer)
            except (_BrokenError, httpx2.TransportError) as error:
                # Only getting further than ever counts: a server may make us begin anew for ever.
                failures = 1 if sink.count > most else failures + 1
                most = max(most, sink.count)
                if failures > len(WAITS_S):
                    raise SourceError(
                        f"{self.origin}: {self.name} broke off at byte {sink.count} "
                        f"({_reason(error)}), {failures} times in a row; what came is kept, "
                        "the same command goes on from there"
                    ) from error
                asked = error.wait_s if isinstance(error, _BrokenError) else 0
                transfer.cancel.wait(min(max(asked, WAITS_S[failures - 1]), _LONGEST_WAIT_S))
                transfer.check()
            except OfflineModeIsEnabled as error:
                raise SourceError(
                    f"{self.origin}: not asked, since HF_HUB_OFFLINE is set; unset it"
                ) from error
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # such as endless redirects
                raise SourceError(f"{self.origin}: {self.url}: {_reason(error)}") from error
            else:
                return

    def _attempt(self, sink: "_Sink", transfer: Transfer) -> None:
        """Make one request and take what it brings; return when the file is whole."""
        if sink.count and sink.count == self.size:
            return
        headers = {**self.headers, "Accept-Encoding": "identity"}  # offsets are of these bytes
        if sink.count:
            headers["Range"] = f"bytes={sink.count}-"
            if sink.etag is not None:
                headers["If-Range"] = sink.etag
        timeout = httpx2.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        with get_session().stream("GET", self.url, headers=headers, timeout=timeout) as response:
            total = self._begin(response, sink)
            limit = self.size if total is None else total
            # In the pieces that arrive: larger ones would be lost when the connection breaks.
            for data in response.iter_raw():
                transfer.check()
                if limit is not None and sink.count + len(data) > limit:
                    raise SourceError(
                        f"{self.origin}: {self.name} is longer than the {limit} bytes announced; "
                        "the server is wrong, try later"
                    )
                sink.write(data)
        if limit is not None and sink.count < limit:
            raise _BrokenError("the connection ended early")

    def _begin(self, response: httpx2.Response, sink: "_Sink") -> int | None:
        """Read the head of a response, make ready for its body, return the whole file's size."""
        status = response.status_code
        if status == 416 and sink.count:  # nothing after what is there, or less than that
            sink.restart()
            raise _BrokenError("the server has a shorter file")
        if status in _RETRIED:
            asked = response.headers.get("Retry-After", "")
            raise _BrokenError(f"HTTP {status}", float(asked) if asked.isdecimal() else 0)
        if status not in (200, 206):
            raise SourceError(f"{self.origin}: {self.name}: HTTP {status}{_advice(status)}")
        etag = response.headers.get("ETag", "")
        if status == 200:
            if sink.count:  # the server does not resume, or the file has changed
                sink.restart()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        else:
            found = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
            )
            if found is None or int(found[1]) != sink.count:
                sink.restart()
                raise _BrokenError("the server sent another range than asked for")
            total = None if found[2] == "*" else int(found[2])
        sink.etag = etag if etag and not etag.startswith("W/") else None
        if total is not None and self.size is not None and total != self.size:
            raise SourceError(
                f"{self.origin}: {self.name} has {total} bytes there, and should have {self.size}; "
                "it is another file, or the server is wrong"
            )
        return total


class _Sink:
    """The file that is being gathered, with its digests and its count in step.

    Args:
        file: open for appending; what it holds counts as come.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: Path,
        algorithms: tuple[str, ...],
        size: int | None,
        transfer: Transfer,
    ) -> None:
        self._file, self._path = file, path
        self._algorithms, self._size = algorithms, size
        self._transfer = transfer
        self.digests = Digests(algorithms, size)
        self.count = 0
        self.etag: str | None = None
        held = path.stat().st_size
        if size is not None and held > size:
            self.restart()
            return

        def on_bytes(count: int) -> None:
            transfer.check()
            transfer.on_bytes(count)

        if held:
            read_through(path, self.digests, on_bytes=on_bytes)
        self.count = held

    def write(self, data: bytes) -> None:
        with writing(self._path):
            self._file.write(data)
            self._file.flush()  # what a killed process leaves is what it counted
        self.digests.update(data)
        self.count += len(data)
        self._transfer.on_bytes(len(data))

    def restart(self) -> None:
        """Forget everything that has come."""
        with writing(self._path):
            self._file.truncate(0)
        self._transfer.on_bytes(-self.count)
        self.digests = Digests(self._algorithms, self._size)
        self.count = 0
        self.etag = None

    def close(self) -> None:
        with writing(self._path):
            os.fsync(self._file.fileno())


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _advice(status: int) -> str:
    if status in (401, 403):
        return " (not allowed; log in with: hf auth login)"
    return " (it is not there)" if status in (404, 410) else ""
