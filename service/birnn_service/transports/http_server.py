"""The HTTP server: uvicorn in our event loop, with bounds, and one callable that answers."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn

from birnn_service.transports.cors import Cors
from birnn_service.transports.http_body import read_body
from birnn_service.transports.http_connection import Connection
from birnn_service.transports.http_connections import Connections
from birnn_service.transports.http_handshake import Accepted
from birnn_service.transports.http_message import Answer, HttpLimits, HttpReply, HttpRequest, Scope
from birnn_service.transports.socket_address import BACKLOG

logger = logging.getLogger(__name__)


class HttpServer:
    """Takes requests and sends what `answer` makes of them."""

    def __init__(self, answer: Answer, limits: HttpLimits, *, cors_origins: Collection[str] = ()) -> None:
        """Serve.

        Args:
            answer: Answers a request; cancelled if the caller leaves. Errors are its own business: an exception is
                logged and becomes a bare 500.
            limits: What callers may do.
            cors_origins: Web pages that may call, by origin.
        """
        self._answer = answer
        self._limits = limits
        self._cors = Cors(cors_origins)
        self._connections = Connections(limits)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._connections)

    def refused_connections(self) -> int:
        """How many connections were closed because there were too many."""
        return self._connections.refused

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Begin to take requests, without `tls` in the clear, on a bound socket, which then belongs to the server."""
        config = uvicorn.Config(
            cast(Any, _unused),
            http=cast(Any, partial(self._protocol, tls)),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=self._limits.idle_seconds,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._server = _Server(config, self._connections)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.001)

    def _protocol(self, tls: ssl.SSLContext | None, **uvicorns: Any) -> asyncio.Protocol:
        """What a new connection begins with."""
        make = partial(Connection, self._connections, self._serve, **uvicorns)
        return make() if tls is None else Accepted(self._connections, tls, make)

    def drain(self) -> None:
        """From now on every reply is the last one of its connection, so that callers find another server."""
        self._connections.draining = True

    async def close(self, grace: float) -> None:
        """Close the port and idle connections, let calls under way finish within `grace` seconds, and end others."""
        self.drain()
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        _, late = await asyncio.wait((self._task,), timeout=grace)
        if late:
            self._server.force_exit = True
            self._connections.abort()
        await self._task
        # Those who still shake hands have held up nothing, and get no further.
        self._connections.abort()

    async def _serve(
        self,
        connection: Connection,
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer one request: ASGI."""
        if connection.lost:
            return
        request = self._request(connection, scope, receive)
        connection.call = asyncio.current_task()
        try:
            reply, headers = await self._reply(request)
            connection.call = None
            await _send(connection, reply, headers, send)
        except asyncio.CancelledError:  # the caller has left, or the server closes
            connection.abort()
        finally:
            connection.call = None
            request.end()

    async def _reply(self, request: HttpRequest) -> tuple[HttpReply, list[tuple[str, str]]]:
        """The reply to a request, and all of its headers but those that connections need."""
        reply = self._cors.preflight(request)
        if reply is None:
            try:
                reply = await self._answer(request)
            except Exception as error:
                logger.error("%s %s failed unexpectedly", request.method, request.path[:100], exc_info=error)
                reply = HttpReply(500, (b"the server failed unexpectedly; its log says more\n",), "text/plain")
        headers = [*reply.headers, *self._cors.headers(request.headers)]
        return reply, headers

    def _request(self, connection: Connection, scope: Scope, receive: Callable[[], Awaitable[Any]]) -> HttpRequest:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = headers.get("content-length")
        size = None if length is None else int(length)
        encoding = headers.get("content-encoding", "").strip().lower()
        return HttpRequest(
            scope["method"],
            scope["path"],
            headers,
            connection.caller,
            partial(read_body, connection, receive, size, encoding, self._limits.body_bytes),
            certificate_name=connection.certificate_name,
        )


class _Server(uvicorn.Server):
    """uvicorn's, without its hands on signals, and with the sweep of our connections."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._all = connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who has asked for them."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second."""
        self._all.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)


async def _send(
    connection: Connection,
    reply: HttpReply,
    fields: Sequence[tuple[str, str]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    if reply.status not in (204, 304):
        headers.append((b"content-type", reply.media_type.encode("latin-1")))
        headers.append((b"content-length", b"%d" % reply.size))
    if connection.ends:
        headers.append((b"connection", b"close"))
    connection.begin_reply()
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    *pieces, last = reply.body or (b"",)
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    connection.end_reply()
    await send({"type": "http.response.body", "body": last})
    await connection.sent()


async def _unused(scope: Scope, receive: object, send: object) -> None:
    """What uvicorn's configuration asks for; connections have their own."""
