"""A web server on this machine that misbehaves as asked."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from data_prep.sources.web import Limits

# Quick and local; everything else as users have it.
QUICK = Limits(timeout_s=5, pause_s=0.01, max_pause_s=0.02, tries=3, schemes=("http",),
               spare_bytes=0)  # fmt: skip


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


@dataclass
class Page:
    """What the server says under one path."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    ranges: bool = True
    tag: str | None = None
    modified: str = ""
    cuts: list[int] = field(default_factory=list)  # the n-th answer ends after so many bytes
    failures: list[int] = field(default_factory=list)  # statuses of the first answers
    to: str = ""  # redirect
    length: bool = True
    announce: int | None = None
    first_byte_off: int = 0
    pause_s: float = 0.0  # between single bytes
    headers: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)

    @property
    def etag(self):
        return f'"{hashlib.md5(self.body).hexdigest()}"' if self.tag is None else self.tag


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.close_connection = True
        page = self.server.pages.get(self.path)
        if page is None:
            return self._answer(404, b"<html>nothing here</html>", {"Content-Type": "text/html"})
        page.requests.append(dict(self.headers))
        if page.failures:
            return self._answer(page.failures.pop(0), b"later", page.headers)
        if page.to:
            return self._answer(302, b"", {"Location": page.to})
        head = {"Content-Type": page.kind, "ETag": page.etag, "Last-Modified": page.modified}
        head = {key: value for key, value in head.items() if value} | page.headers
        start, status, body = 0, page.status, page.body
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked and page.ranges and condition in (None, page.etag, page.modified):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            status = 206
            start += page.first_byte_off
            head["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        body = body[start:]
        announced = len(body) if page.announce is None else page.announce
        if page.cuts:
            body = body[: page.cuts.pop(0)]
        return self._answer(status, body, head, announced if page.length else None, page.pause_s)

    def _answer(self, status, body, head, announced=-1, pause_s=0.0):
        self.send_response(status)
        for key, value in head.items():
            self.send_header(key, value)
        if announced is not None:
            self.send_header("Content-Length", str(len(body) if announced < 0 else announced))
        self.end_headers()
        if not pause_s:
            self.wfile.write(body)
        for byte in body if pause_s else b"":
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(pause_s)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """A client that went away is part of the tests."""


class Site:
    """Pages and their addresses."""

    def __init__(self, server):
        self.pages = server.pages = {}
        self.root = f"http://127.0.0.1:{server.server_address[1]}"

    def put(self, path, **settings):
        self.pages[path] = Page(**settings)
        return self.root + path


@contextmanager
def running():
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Site(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
