"""A web server on loopback that behaves badly on request, also in the manner of the Hub."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40
_STEP = 16_384


@dataclass
class Misdeeds:
    """What the server does wrong; each list is used up from its front.

    Attributes:
        cuts: bytes after which the connections of the next requests break off.
        statuses: of the next answers, in place of the file.
        flip: offset of a byte that is sent with its bits inverted, once.
        ignore_range: sends the whole file whatever is asked for.
        announce: added to the announced length.
        shift: added to the offset of a range.
        stall: waits for this before it sends more.
        stall_at: offset from which it waits; by default the middle of the file.
    """

    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    flip: int | None = None
    ignore_range: bool = False
    announce: int = 0
    shift: int = 0
    stall: threading.Event | None = None
    stall_at: int | None = None


class Server:
    """Files by their path, what was asked for, and what to do wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.tags: dict[str, str] = {}
        self.wrong: dict[str, Misdeeds] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.receivers: dict[tuple[str, str], Callable[[bytes], tuple[int, bytes]]] = {}
        """What answers POST and PUT, by method and path: from a body to a status and an answer."""
        self.url = ""

    def put(self, path: str, data: bytes) -> Misdeeds:
        """Offer a file; what is returned can be told to misbehave."""
        self.files[path] = data
        return self.wrong.setdefault(path, Misdeeds())

    def ranges(self, path: str) -> list[str]:
        """The ranges that GET requests for a path asked for, "" for none."""
        return [r for method, p, r in self.requests if method == "GET" and p == path]


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    state = Server()

    class Handler(_Handler):
        server_state = state

    with _QuietServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Stay silent when a client hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server_state: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def _receive(self) -> None:
        path = self.path.partition("?")[0]
        state = self.server_state
        state.requests.append((self.command, path, ""))
        state.headers.append(dict(self.headers))
        data = self._body()
        receiver = state.receivers.get((self.command, path))
        status, answer = (404, b"") if receiver is None else receiver(data)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, *, body: bool) -> None:
        self.path = self.path.partition("?")[0]
        state = self.server_state
        asked = self.headers.get("Range", "")
        state.requests.append((self.command, self.path, asked))
        state.headers.append(dict(self.headers))
        data = state.files.get(self.path)
        wrong = state.wrong.get(self.path, Misdeeds())
        if self.path in state.private and "Bearer secret" not in self.headers.get(
            "Authorization", ""
        ):
            self._refuse(401)
        elif data is None:
            self._refuse(404)
        elif body and wrong.statuses:
            self._refuse(wrong.statuses.pop(0))
        else:
            self._send(data, wrong, asked, body=body)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, wrong: Misdeeds, asked: str, *, body: bool) -> None:
        tag = self.server_state.tags.get(self.path, hashlib.sha256(data).hexdigest())
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        start = 0
        same = self.headers.get("If-Range", f'"{tag}"') == f'"{tag}"'
        if match and same and not wrong.ignore_range:
            start = int(match[1]) + wrong.shift
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start + wrong.announce))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self._stream(data, start, wrong)

    def _stream(self, data: bytes, start: int, wrong: Misdeeds) -> None:
        end = start + wrong.cuts.pop(0) if wrong.cuts else len(data)
        if wrong.flip is not None and start <= wrong.flip < end:
            at = wrong.flip
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            wrong.flip = None
        for place in range(start, min(end, len(data)), _STEP):
            stall_at = len(data) // 2 if wrong.stall_at is None else wrong.stall_at
            if wrong.stall is not None and place >= stall_at:
                wrong.stall.wait(60)
            self.wfile.write(data[place : min(place + _STEP, end)])
            self.wfile.flush()
        if end < len(data) or wrong.announce > 0:
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *_: object) -> None:
        """Stay silent."""
