"""A real HTTP server on the loopback, one that misbehaves as each test says.

A path is ``/<behaviour>/<anything>``; what was asked is kept in ``requests`` as (path, headers).
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
ETAG = '"version-1"'


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.content = CONTENT
        self.etag = ETAG
        self.raw = b""
        self.ending = threading.Event()
        self.scheme = "http"

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def url(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/op.run"

    def count(self, behaviour: str) -> int:
        return sum(path.startswith(f"/{behaviour}/") for path, _ in self.requests)

    def encrypt(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests read ``requests``."""

    def do_GET(self) -> None:
        path = re.sub(r"^http://[^/]*", "", self.path)  # a proxy is asked with the whole URL
        self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        behaviour = path.split("/")[1].replace("-", "_")
        getattr(self, f"serve_{behaviour}", self.serve_missing)()

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def first(self) -> bool:
        """Is this the first time that this path is asked for?"""
        return sum(path == self.path for path, _ in self.server.requests) == 1

    def wanted(self) -> int | None:
        """Where the answer is to begin, when Range asks for it and If-Range agrees."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found is None or self.headers.get("If-Range", self.server.etag) != self.server.etag:
            return None
        return int(found[1])

    def serve_good(self, cut: int | None = None) -> None:
        content, begin = self.server.content, self.wanted()
        if begin is None:
            self.head(200, Content_Length=len(content), ETag=self.server.etag)
            self.wfile.write(content[:cut])
        elif begin >= len(content):
            self.head(416, Content_Range=f"bytes */{len(content)}")
        else:
            end = len(content) - 1
            self.head(206, Content_Length=len(content) - begin, Content_Range=f"bytes {begin}-{end}/{end + 1}")
            self.wfile.write(content[begin : begin + cut if cut else None])

    def serve_drops(self) -> None:
        """Hangs up after 200,000 bytes of each answer."""
        self.serve_good(cut=200_000)

    def serve_drops_once(self) -> None:
        self.serve_good(cut=200_000 if self.first() else None)

    def serve_drops_always(self) -> None:
        """Hangs up after the same 1,000 bytes, and knows no ranges."""
        self.head(200, Content_Length=len(CONTENT))
        self.wfile.write(CONTENT[:1000])

    def serve_hangs_up(self) -> None:
        """Not even a status line."""

    def serve_longer(self) -> None:
        """States more than it has."""
        self.head(200, Content_Length=len(CONTENT) + 10)
        self.wfile.write(CONTENT)

    def serve_shorter(self) -> None:
        """States less than it sends."""
        self.head(200, Content_Length=1000)
        self.wfile.write(CONTENT)

    def serve_no_length(self) -> None:
        self.head(200)
        self.wfile.write(CONTENT)

    def serve_chunked(self, cut: bool = False) -> None:
        self.protocol_version = "HTTP/1.1"
        self.head(200, Transfer_Encoding="chunked")
        half = len(CONTENT) // 2
        self.wfile.write(b"%x\r\n" % half + CONTENT[:half] + b"\r\n")
        if not cut:
            self.wfile.write(b"%x\r\n" % half + CONTENT[half:] + b"\r\n0\r\n\r\n")

    def serve_chunked_cut(self) -> None:
        self.serve_chunked(cut=True)

    def serve_endless(self) -> None:
        self.head(200)
        while not self.server.ending.is_set():
            self.wfile.write(CONTENT)

    def serve_ignores_range(self) -> None:
        self.head(200, Content_Length=len(CONTENT), ETag=ETAG)
        self.wfile.write(CONTENT[: 200_000 if self.first() else None])

    def serve_wrong_range(self) -> None:
        """Answers any range with the beginning."""
        if self.first():
            self.serve_good(cut=200_000)
        elif "Range" in self.headers:
            self.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(CONTENT)}")
            self.wfile.write(CONTENT[:10])
        else:
            self.serve_good()

    def serve_wrong_piece(self) -> None:
        """The rest is of another file, under the right headers."""
        begin = self.wanted()
        if begin is None:
            self.serve_good(cut=200_000 if self.first() else None)
        else:
            end = len(CONTENT) - 1
            self.head(206, Content_Length=end + 1 - begin, Content_Range=f"bytes {begin}-{end}/{end + 1}")
            self.wfile.write(b"x" * (end + 1 - begin))

    def serve_replaced(self) -> None:
        """The file changes between two answers."""
        if self.first():
            self.serve_good(cut=200_000)
            self.server.content, self.server.etag = CONTENT[::-1], '"version-2"'
        else:
            self.serve_good()

    def serve_packed(self) -> None:
        self.head(200, Content_Length=len(CONTENT), Content_Encoding="gzip")
        self.wfile.write(CONTENT)

    def serve_unavailable(self) -> None:
        self.head(503, Content_Length=0)

    def serve_busy_once(self) -> None:
        if self.first():
            self.head(503, Content_Length=0, Retry_After="0")
        else:
            self.serve_good()

    def serve_forbidden(self) -> None:
        self.head(403, Content_Length=0)

    def serve_raw(self) -> None:
        """Whatever the test wants, and the end of the connection."""
        self.wfile.write(self.server.raw)

    def serve_missing(self) -> None:
        self.head(404, Content_Length=0)

    def serve_redirect(self) -> None:
        self.head(302, Content_Length=0, Location="/good/op.run")

    def serve_loop(self) -> None:
        self.head(302, Content_Length=0, Location="/loop/op.run")

    def serve_to_file(self) -> None:
        self.head(302, Content_Length=0, Location="file:///etc/hostname")

    def serve_to_nowhere(self) -> None:
        self.head(302, Content_Length=0)

    def serve_silent(self) -> None:
        """Takes the request and says nothing."""
        self.server.ending.wait(20)

    def serve_stalls(self) -> None:
        """Half of it, then nothing."""
        self.head(200, Content_Length=len(CONTENT), ETag=ETAG)
        self.wfile.write(CONTENT[:1000])
        self.server.ending.wait(20)

    def serve_stalls_once(self) -> None:
        if self.first():
            self.head(200, Content_Length=len(self.server.content), ETag=ETAG)
            self.wfile.write(self.server.content[:1000])
            self.server.ending.wait(20)
        else:
            self.serve_good()

    def serve_drips(self) -> None:
        """A byte now and then, so that no single wait is long."""
        self.head(200, Content_Length=len(CONTENT))
        begin = time.monotonic()
        while not self.server.ending.wait(0.05) and time.monotonic() < begin + 20:
            self.wfile.write(b"x")
            self.wfile.flush()

    def serve_page(self) -> None:
        """A login page where a package should be."""
        self.head(200, Content_Length=16)
        self.wfile.write(b"<html>login</html>"[:16])
