"""A web server on this machine for tests of downloads, as unreliable as it is told to be."""

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock


class Loopback:
    """Serves files from memory at `address`; a context.

    Attributes:
        files: Content by name; tests change it.
        stops_after: Bytes of a body after which the connection is closed; None: never.
        stalls_after: Bytes of a body after which nothing more is sent; None: never.
        ranges: Whether it answers requests for a part with that part.
        checks_versions: Whether it heeds If-Range, as it should.
        tags: Whether it names a file's version in an entity tag.
        dates: Whether it says when a file was changed: the same for every content.
        announces: The size that it says a body has; None: the one it has; 0: it says nothing.
        encoding: The Content-Encoding that it claims.
        status: An answer to all requests other than the file, e.g. 503.
        requests: (path, Range) of each request, in order.
    """

    def __init__(self, **files: bytes) -> None:
        self.files = dict(files)
        self.stops_after = self.stalls_after = self.announces = self.encoding = None
        self.ranges = self.checks_versions = self.tags = True
        self.dates = False
        self.status = 200
        self.requests = []
        self._ended = threading.Event()
        self._environment = mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Loopback":
        self._environment.start()
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._environment.stop()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                loopback._answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers["Range"]
        self.requests.append((handler.path, wanted))
        content = self.files.get(handler.path.lstrip("/"))
        if content is None or self.status != 200:
            handler.send_error(404 if content is None else self.status)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        stale = self.checks_versions and handler.headers["If-Range"] not in (None, tag)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and not stale:
            inside = start < len(content)
            handler.send_response(206 if inside else 416)
            span = f"{start}-{len(content) - 1}" if inside else "*"
            handler.send_header("Content-Range", f"bytes {span}/{len(content)}")
        else:
            start = 0
            handler.send_response(200)
        if self.announces != 0:
            handler.send_header("Content-Length", str(self.announces or len(content[start:])))
        if self.tags:
            handler.send_header("ETag", tag)
        if self.dates:
            handler.send_header("Last-Modified", "Sun, 17 Jun 2018 08:00:00 GMT")
        if self.encoding:
            handler.send_header("Content-Encoding", self.encoding)
        handler.end_headers()
        ends = [end for end in (self.stops_after, self.stalls_after) if end is not None]
        with suppress(ConnectionError):  # the client was killed
            handler.wfile.write(content[start:][: min(ends, default=None)])
            handler.wfile.flush()
        if self.stalls_after is not None:
            self._ended.wait()


def pack(files: Mapping[str, Path | bytes]) -> bytes:
    """Returns a .tar.gz of files, given by their names in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            if isinstance(content, Path):
                archive.add(content, name)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
