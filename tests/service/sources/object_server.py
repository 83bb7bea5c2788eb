"""A store of objects in this process that can do everything wrong that a store may do.

It speaks as much of S3's protocol as is needed to list and read; Google's is the same there, and a plain web server's
is a part of it.
"""

import hashlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.certificates import Pair

BUCKET = "bucket"


@dataclass
class ObjectServer:
    """What the store holds, and what it does wrong.

    Attributes:
        objects: Contents by path below the bucket.
        sizes: Sizes that the list gives instead of the real ones, by path.
        contents: What is sent instead of the objects, by path.
        before: Called before an object is sent, by path; a fault may be written here.
        status: The status that every request gets, by path; `""` is the list.
        requests: Paths that were asked for, in order.
        stalled: Paths that are never sent to the end, until the server ends.
        dripping: Paths that are sent a byte at a time.
        cut: Paths whose connection ends after the half.
        endless: Whether each page of the list says that another one follows.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stalled: set[str] = field(default_factory=set)
    dripping: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    endless: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def upload(self, folder: Path, prefix: str = "") -> None:
        """Hold all files of a folder."""
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".py":
                self.objects[prefix + path.relative_to(folder).as_posix()] = path.read_bytes()


@contextmanager
def object_server(tls: Pair | None = None) -> Iterator[ObjectServer]:
    """A store that listens, with a certificate if one is given."""
    store = ObjectServer(scheme="https" if tls else "http")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        store.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _handler(store: ObjectServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path).lstrip("/").removeprefix(BUCKET).lstrip("/")
            store.requests.append(path)
            if path in store.before:
                store.before[path]()
            if status := store.status.get(path):
                self._reply(status, b"<Error><Code>Told</Code></Error>")
            elif "list-type" in parse_qs(parts.query):
                self._list(parse_qs(parts.query).get("prefix", [""])[0])
            elif path not in store.objects:
                self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
            elif self.headers.get("If-Match", etag_of(store.objects[path])) != etag_of(store.objects[path]):
                self._reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            else:
                self._send(path)

        def _list(self, prefix: str) -> None:
            if "" in store.stalled:
                store.ended.wait()
            entries = "".join(
                f"<Contents><Key>{escape(path)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(etag_of(content))}</ETag><Size>{store.sizes.get(path, len(content))}</Size></Contents>"
                for path, content in sorted(store.objects.items())
                if path.startswith(prefix)
            )
            more = "<NextContinuationToken>more</NextContinuationToken>" if store.endless else ""
            self._reply(
                200,
                f"<ListBucketResult><IsTruncated>{str(store.endless).lower()}</IsTruncated>{more}{entries}"
                "</ListBucketResult>".encode(),
            )

        def _send(self, path: str) -> None:
            content = store.contents.get(path, store.objects[path])
            etag, first = etag_of(store.objects[path]), re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
            if first is None:
                self._reply(200, content, etag, path)
            else:
                begin = int(first[1])
                self._reply(206, content[begin:], etag, path, f"bytes {begin}-{len(content) - 1}/{len(content)}")

        def handle(self) -> None:
            # Clients that have seen enough go.
            with suppress(ConnectionError):
                super().handle()

        def _reply(self, status: int, content: bytes, etag: str = '"none"', path: str = "", part: str = "") -> None:
            self.send_response(status)
            if part:
                self.send_header("Content-Range", part)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            half = len(content) // 2
            if path and path in store.stalled:
                self.wfile.write(content[:half])
                self.wfile.flush()
                store.ended.wait()
                self.close_connection = True
            elif path and path in store.cut:
                self.wfile.write(content[:half])
                self.close_connection = True
            elif path and path in store.dripping:
                for number in range(len(content)):
                    self.wfile.write(content[number : number + 1])
                    self.wfile.flush()
                    if store.ended.is_set():
                        break
                    time.sleep(0.02)
            else:
                self.wfile.write(content)

    return Handler
