"""A proxy in front of the tests' S3 server that does to requests what a plan says."""

import http.client
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Action = Literal[
    "pass", "503", "expired", "denied", "no-bucket", "reset", "reset-after", "cut", "silent", "kill", "kill-after"
]
"""``-after``: the server has done it, and the client does not learn of it. ``cut``: half of the answer's body comes."""

_REFUSALS = {
    "503": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "no-bucket": (404, "NoSuchBucket"),
}


@dataclass(frozen=True)
class Request:
    """``number`` counts from 0 since the plan was set; ``write`` so too, of requests that change something."""

    number: int
    method: str
    path: str
    write: int | None = None


Plan = Callable[[Request], Action]

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"


@dataclass
class FaultyS3:
    """Set ``plan``; ``victim`` is the process that ``kill`` ends; ``answered`` is told the server's own status."""

    server: str
    endpoint: str = ""
    plan: Plan = lambda request: "pass"
    answered: Callable[[Request, int], None] = lambda request, status: None
    victim: int = 0
    seen: list[Request] = field(default_factory=list)
    writes: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, plan: Plan) -> None:
        with self.lock:
            self.seen.clear()
            self.writes = 0
            self.plan = plan

    def next(self, method: str, path: str) -> tuple[Request, Action]:
        with self.lock:
            changes = method not in ("GET", "HEAD")
            request = Request(len(self.seen), method, path, self.writes if changes else None)
            self.writes += changes
            self.seen.append(request)
            return request, self.plan(request)


@contextmanager
def faulty_s3(server: str) -> Iterator[FaultyS3]:
    """A running proxy to ``server``, an endpoint URL."""
    faults = FaultyS3(server)

    class Handler(_Handler):
        proxy = faults

    http_server = _Server(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    faults.endpoint = f"http://127.0.0.1:{http_server.server_port}"
    thread = threading.Thread(target=http_server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield faults
    finally:
        faults.released.set()
        http_server.shutdown()
        http_server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed leave their connections."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyS3
    protocol_version = "HTTP/1.1"

    def do_request(self) -> None:
        body = self._body()
        request, action = self.proxy.next(self.command, self.path)
        if action in _REFUSALS:
            status, code = _REFUSALS[action]
            self._answer(status, _ERROR.format(code=code).encode())
        elif action == "reset":
            self._reset()
        elif action == "silent":
            self.proxy.released.wait(60)
            self._reset()
        elif action == "kill":
            self._kill()
        else:
            self._forward(body, request, action)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_request  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Tests print nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes, request: Request, action: Action) -> None:
        # The host stays the client's own: it is part of what was signed.
        connection = http.client.HTTPConnection(urlsplit(self.proxy.server).netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.proxy.answered(request, answer.status)
        if action == "reset-after":
            self._reset()
        elif action == "kill-after":
            self._kill()
        else:
            self._answer(answer.status, content, dict(answer.getheaders()), cut=action == "cut")

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in (headers or {"Content-Type": "application/xml"}).items():
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if cut:
            self.wfile.write(content[: len(content) // 2])
            self._reset()
        elif self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _kill(self) -> None:
        os.kill(self.proxy.victim, signal.SIGKILL)
        self._reset()
