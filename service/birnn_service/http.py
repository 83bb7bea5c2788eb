"""The HTTP side: /metrics for Prometheus, /healthz and /readyz for probes."""

import asyncio
import http.client
import io
import os
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, cast

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from birnn_service.access import AUTHORIZATION, Access
from birnn_service.descriptors import EXHAUSTED
from birnn_service.errors import ServiceError
from birnn_service.protocols.http_errors import headers_of, status_of
from birnn_service.token_file import Right
from birnn_service.transports.socket_address import SocketAddress

# More connections than probes and scrapes ever have; beyond that the oldest is closed, first of all one that has not
# sent its request yet.
MAX_CONNECTIONS = 32
MAX_HEAD_BYTES = 8192
# How long one exchange may take, from the connection to the last byte that the other side reads.
EXCHANGE_SECONDS = 5.0
# Connections accepted before those that are there get their turn.
ACCEPTED_AT_ONCE = 8
# Descriptors held back, so that probes hear the truth where there are no others left.
RESERVED = 4
# Pauses where a connection cannot be accepted even so: until one that is dropped has been closed, or others have.
DROP_SECONDS, RETRY_SECONDS = 0.005, 0.1

Reply = tuple[str, list[tuple[str, str]], bytes]


class HttpServer:
    """Serves the metrics registry and two probes from its own threads, so that a busy event loop hides neither.

    One thread holds all connections and answers probes, another collects metrics for one scrape at a time. Connections,
    the size of a request and the time it takes are bounded; every reply closes its connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Collector,
        access: Access,
        *,
        live: Callable[[], bool],
        ready: Callable[[], bool],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen at once; a scrape collects `metrics`, and needs the right to. With `tls`, everything takes TLS.

        Raises:
            StartupError: The port is taken or the address is not this machine's.
        """
        self._access = access
        self._tls = tls
        registry = CollectorRegistry()
        registry.register(metrics)
        self._metrics_app = make_wsgi_app(registry)
        self._probes = {"/healthz": live, "/readyz": ready}
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise SocketAddress(host, port, "metrics").refused(str(error.strerror)) from error
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._reserved: list[int] = []
        self._reserve()
        # In order of arrival.
        self._connections: dict[_Connection, None] = {}
        # Not uvloop: that one does not let us accept connections ourselves.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._serve, name="birnn-http", daemon=True)
        self._scraper = ThreadPoolExecutor(1, thread_name_prefix="birnn-scrape")

    def start(self) -> None:
        """Begin to answer."""
        # Threads that run already cannot be refused later.
        self._scraper.submit(int).result()
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._scraper.shutdown(cancel_futures=True)
        self._loop.close()
        self._listener.close()
        for descriptor in self._reserved:
            os.close(descriptor)

    def answer(self, connection: "_Connection", head: bytes) -> None:
        """Answer the request that begins with `head`, at once or, for a scrape, soon."""
        try:
            method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
            fields = http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2]))
        except (ValueError, http.client.HTTPException):
            connection.reply(_text("400 Bad Request", "this is no HTTP request\n"))
            return
        path, _, query = target.partition("?")
        if method not in ("GET", "HEAD"):
            connection.reply(_text("405 Method Not Allowed", "use GET\n"))
        elif path == "/metrics":
            try:
                # One that comes twice is none: which of them counts would be up to who reads it.
                self._access.authorize(", ".join(fields.get_all(AUTHORIZATION, ())), Right.METRICS)
            except ServiceError as error:
                connection.reply(_refusal(error))
                return
            environ = {
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "HTTP_ACCEPT": fields.get("Accept", ""),
                "HTTP_ACCEPT_ENCODING": fields.get("Accept-Encoding", ""),
            }
            self._scraper.submit(self._scrape, connection, environ)
        elif path not in self._probes:
            connection.reply(_text("404 Not Found", "here are /metrics, /healthz and /readyz\n"))
        elif self._probes[path]():
            connection.reply(_text("200 OK", "ok\n"))
        else:
            connection.reply(_text("503 Service Unavailable", "not ok\n"))

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)
        # Only after this callback does the transport close its socket.
        self._loop.call_soon(self._reserve)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._listen()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())

    async def _end(self) -> None:
        openings = [connection.opening for connection in self._connections if connection.opening is not None]
        for connection in self._connections:
            connection.abort()
        await asyncio.gather(*openings, return_exceptions=True)
        await asyncio.sleep(0)

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._make_room(error)
                return
            accepted.setblocking(False)
            while len(self._connections) >= MAX_CONNECTIONS:
                self._drop_oldest()
            connection = _Connection(self)
            self._connections[connection] = None
            connection.opening = self._loop.create_task(self._open(connection, accepted))
            connection.opening.add_done_callback(partial(self._opened, connection, accepted))

    async def _open(self, connection: "_Connection", accepted: socket.socket) -> None:
        await self._loop.connect_accepted_socket(
            lambda: connection,
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else EXCHANGE_SECONDS,
        )

    def _opened(self, connection: "_Connection", accepted: socket.socket, opening: "asyncio.Task[None]") -> None:
        if opening.cancelled() or opening.exception() is not None:
            # The handshake failed, took too long, or was cut short, perhaps before it began.
            accepted.close()
            self.forget(connection)

    def _make_room(self, error: OSError) -> None:
        """A connection that waits could not be accepted: free a descriptor for the next try, or try again later."""
        if error.errno in EXHAUSTED and self._reserved:
            os.close(self._reserved.pop())
            return
        pause = RETRY_SECONDS
        if self._connections:
            self._drop_oldest()
            pause = DROP_SECONDS
        self._loop.remove_reader(self._listener)
        self._loop.call_later(pause, self._listen)

    def _drop_oldest(self) -> None:
        waiting = (connection for connection in self._connections if not connection.is_asked)
        oldest = next(waiting, None) or next(iter(self._connections))
        del self._connections[oldest]
        oldest.abort()

    def _reserve(self) -> None:
        with suppress(OSError):
            while len(self._reserved) < RESERVED:
                self._reserved.append(os.open(os.devnull, os.O_RDONLY))

    def _scrape(self, connection: "_Connection", environ: dict[str, Any]) -> None:
        """Collect the metrics, on the scraper's thread."""
        if connection not in self._connections:
            return
        started: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._metrics_app(environ, lambda status, fields: started.append((status, fields))))
        status, fields = started[0]
        reply = (status, [*fields, ("Content-Length", str(len(body)))], body)
        with suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(connection.reply, reply)


class _Connection(asyncio.Protocol):
    """One request and its reply."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._dropped = False
        self._timer: asyncio.TimerHandle | None = None
        self.opening: asyncio.Task[None] | None = None
        self.is_asked = False
        """Whether the request is there."""

    def abort(self) -> None:
        """Close it at once, whatever is left to send."""
        self._dropped = True
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def reply(self, reply: Reply) -> None:
        """Send a reply and close."""
        if self._transport is None or self._transport.is_closing():
            return
        status, fields, body = reply
        head = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "Connection: close", "", ""]
        self._transport.write("\r\n".join(head).encode("latin-1"))
        if not self._head.startswith(b"HEAD "):
            self._transport.write(body)
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there; time runs."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(EXCHANGE_SECONDS, self.abort)
        if self._dropped:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of the request came."""
        assert self._transport is not None
        if self.is_asked:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= MAX_HEAD_BYTES:
            return
        self.is_asked = True
        self._transport.pause_reading()
        if not 0 <= end <= MAX_HEAD_BYTES:
            self.reply(_text("431 Request Header Fields Too Large", f"a request has up to {MAX_HEAD_BYTES} bytes\n"))
            return
        self._server.answer(self, bytes(self._head[: end + 4]))

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._server.forget(self)


def _text(status: str, text: str) -> Reply:
    body = text.encode()
    return status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))], body


def _refusal(error: ServiceError) -> Reply:
    number = http.HTTPStatus(status_of(error))
    status, fields, body = _text(f"{number} {number.phrase}", f"{error.message}\n")
    return status, [*fields, *headers_of(error)], body
