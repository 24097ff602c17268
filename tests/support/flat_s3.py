"""A small S3 server in memory, for what a real one on this machine does not do.

Keys are flat, as in S3 itself (SeaweedFS makes folders of them); signatures are not checked but kept, so that a test
sees who asked how; and ``fault`` may answer in its place. It is its own TLS front and its own HTTP proxy: a request for
any host is answered as if that host had been asked.
"""

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "flat-bucket"


@dataclass(frozen=True)
class Asked:
    """One request. ``host`` is that of the URL where it came as to a proxy, else empty."""

    method: str
    host: str
    bucket: str
    key: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def access_key(self) -> str:
        return self.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]

    @property
    def region(self) -> str:
        parts = self.headers.get("authorization", "").partition("Credential=")[2].split("/")
        return parts[2] if len(parts) > 2 else ""

    @property
    def client(self) -> str:
        """boto3 (which Arrow reads through), or delta for all others."""
        return "boto3" if "boto" in self.headers.get("user-agent", "").lower() else "delta"


@dataclass(frozen=True)
class Answer:
    """Status 0 breaks the connection."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, code: str, more: str = "", **headers: str) -> Answer:
    """An error as S3 says it; ``more`` is XML within it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message>{more}</Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml"} | headers)


@dataclass
class FlatS3:
    """``fault`` may answer a request instead of the server; None lets it pass."""

    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    fault: Callable[[Asked], Answer | None] = lambda asked: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked, body: bytes) -> Answer:
        with self.lock:
            self.asked.append(asked)
            return self.fault(asked) or self._serve(asked, body)

    def _serve(self, asked: Asked, body: bytes) -> Answer:
        if asked.bucket != BUCKET:
            return refusal(404, "NoSuchBucket")
        if not asked.key:
            return self._list(asked.query) if asked.method == "GET" else Answer(200)
        if asked.method == "PUT":
            if asked.headers.get("if-none-match") == "*" and asked.key in self.objects:
                return refusal(412, "PreconditionFailed")
            self.objects[asked.key] = body
            return Answer(200, headers={"ETag": _etag(body)})
        if asked.method == "DELETE":
            self.objects.pop(asked.key, None)
            return Answer(204)
        return self._read(asked)

    def _read(self, asked: Asked) -> Answer:
        if (data := self.objects.get(asked.key)) is None:
            return refusal(404, "NoSuchKey")
        headers = {"ETag": _etag(data), "Last-Modified": "Tue, 01 Sep 2026 08:00:00 GMT"}
        if wanted := asked.headers.get("range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last) + 1 if first and last else len(data), len(data))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            return Answer(206, data[start:end], headers)
        return Answer(200, data, headers)

    def _list(self, query: dict[str, list[str]]) -> Answer:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after = query.get("start-after", [""])[0]
        contents, folders = [], set()
        for key, data in sorted(self.objects.items()):
            if not key.startswith(prefix) or key <= after:
                continue
            if delimiter and delimiter in key[len(prefix) :]:
                folders.add(prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter)
                continue
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-09-01T08:00:00.000Z</LastModified>"
                f"<ETag>{escape(_etag(data))}</ETag><Size>{len(data)}</Size></Contents>"
            )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
        body = (
            f"<?xml version='1.0'?><ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(contents)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
            f"{''.join(contents)}{common}</ListBucketResult>"
        )
        return Answer(200, body.encode(), {"Content-Type": "application/xml"})


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def flat_s3(tls: ssl.SSLContext | None = None) -> Iterator[FlatS3]:
    """A running server with one bucket, over HTTPS if given a context."""
    server = FlatS3()

    class Handler(_Handler):
        flat = server

    http = _Server(("127.0.0.1", 0), Handler)
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    server.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that do not trust the certificate leave."""


class _Handler(BaseHTTPRequestHandler):
    flat: FlatS3
    protocol_version = "HTTP/1.1"

    def do_request(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = url.path.removeprefix("/").partition("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        if "aws-chunked" in headers.get("content-encoding", ""):
            body = _unchunked(body)
        query = parse_qs(url.query, keep_blank_values=True)
        asked = Asked(self.command, url.hostname or "", unquote(bucket), unquote(key), query, headers)
        answer = self.flat.answer(asked, body)
        if not answer.status:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_request  # noqa: N815

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: object) -> None:
        """Tests print nothing."""


def _unchunked(body: bytes) -> bytes:
    data = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        data, body = data + body[:length], body[length + 2 :]
    return data
