"""A server of OpenAI's protocol that answers rightly, or fails in the way that it is told to."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FaultyServer(ThreadingHTTPServer):
    """Takes its faults from `faults`, one a request, and answers rightly when there are none (or for "ok").

    Attributes:
        requests: bodies that came, decoded.
        keys: what came as Authorization.
        most: most requests in hand at one time.
        says: what a right answer says, by the request's body.
        acts: (status, document) of an answer by the request's body, instead of all that.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[str] = []
        self.always: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.says: Callable[[dict[str, Any]], str] | None = None
        self.acts: Callable[[dict[str, Any]], tuple[int, Any]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers.get("Authorization"))
            n = len(server.requests)
            fault = server.always or (server.faults.pop(0) if server.faults else "ok")
            server.busy += 1
            server.most = max(server.most, server.busy)
        try:
            if server.acts is not None:
                status, document = server.acts(body)
                return self.send(status, document if isinstance(document, bytes) else json.dumps(document).encode())
            getattr(self, f"fault_{fault}")(body, n)
        finally:
            with server.lock:
                server.busy -= 1

    def send(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def fault_ok(self, body: dict[str, Any], n: int) -> None:
        text = self.server.says(body) if self.server.says else f"a {n} prompt of a {{}}."
        choice = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self.send(200, json.dumps({"choices": [{"index": 0, **choice}], "usage": usage}).encode())

    def fault_slow(self, body: dict[str, Any], n: int) -> None:
        self.server.closing.wait(0.05)
        self.fault_ok(body, n)

    def fault_500(self, body: dict[str, Any], n: int) -> None:
        self.send(500, b'{"error": {"message": "out of luck"}}')

    def fault_429(self, body: dict[str, Any], n: int) -> None:
        self.send(429, b'{"error": {"message": "slow down"}}', Retry_After="0.2")

    def fault_hour(self, body: dict[str, Any], n: int) -> None:
        self.send(429, b'{"error": {"message": "tokens per day"}}', Retry_After="3600")

    def fault_401(self, body: dict[str, Any], n: int) -> None:
        self.send(401, b'{"error": {"message": "no key"}}')

    def fault_403(self, body: dict[str, Any], n: int) -> None:
        self.send(403, b'{"error": {"message": "this key may not"}}')

    def fault_404(self, body: dict[str, Any], n: int) -> None:
        self.send(404, b'{"error": {"message": "no such model"}}')

    def fault_400(self, body: dict[str, Any], n: int) -> None:
        self.send(400, b'{"detail": "the context is too short\\u0007 for this"}')

    def fault_new(self, body: dict[str, Any], n: int) -> None:
        if "max_completion_tokens" in body:
            return self.fault_ok(body, n)
        return self.send(400, b'{"error": {"message": "use max_completion_tokens"}}')

    def fault_html(self, body: dict[str, Any], n: int) -> None:
        self.send(200, b"<!doctype html><html><body>Welcome</body></html>", "text/html")

    def fault_nojson(self, body: dict[str, Any], n: int) -> None:
        self.send(200, b'{"choices": [{"mess')

    def fault_other(self, body: dict[str, Any], n: int) -> None:
        self.send(200, b'{"models": ["a", "b"]}')

    def fault_odd(self, body: dict[str, Any], n: int) -> None:
        self.send(200, b'{"choices": [{"message": {"content": {"a": [1]}}, "text": 3}], "usage": "none"}')

    def fault_cut(self, body: dict[str, Any], n: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices"')
        self.close_connection = True

    def fault_drop(self, body: dict[str, Any], n: int) -> None:
        self.close_connection = True

    def fault_hang(self, body: dict[str, Any], n: int) -> None:
        self.server.closing.wait(60)

    def fault_500trickle(self, body: dict[str, Any], n: int) -> None:
        self._flood(b" ", 0.02, 500)

    def fault_400endless(self, body: dict[str, Any], n: int) -> None:
        self._flood(b"no, " * 1000, 0, 400)

    def fault_500endless(self, body: dict[str, Any], n: int) -> None:
        self._flood(b"no, " * 1000, 0, 500)

    def fault_500bomb(self, body: dict[str, Any], n: int) -> None:
        self.send(500, gzip.compress(bytes(200 << 20), 9), Content_Encoding="gzip")

    def fault_headers(self, body: dict[str, Any], n: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x")

    def fault_endless(self, body: dict[str, Any], n: int) -> None:
        self._flood(b"          " * 1000, 0)

    def fault_trickle(self, body: dict[str, Any], n: int) -> None:
        self._flood(b" ", 0.02)

    def _flood(self, chunk: bytes, pause: float, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        started = time.monotonic()
        while not self.server.closing.wait(pause) and time.monotonic() - started < 60:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


@contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    """A running one on a free port of the loopback."""
    server = FaultyServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
