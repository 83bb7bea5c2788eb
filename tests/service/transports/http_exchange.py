"""An HTTP server to test, and what a caller says to it and hears."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from birnn_service.transports.http_message import HttpLimits, HttpReply, HttpRequest, HttpRequestError
from birnn_service.transports.http_server import HttpServer
from birnn_service.transports.socket_address import SocketAddress
from tests.service.transports.clock import PATIENCE_SECONDS

# Those of time are long: a test that wants to see one reached sets a short one, or puts the clock forward.
LIMITS = HttpLimits(
    body_bytes=1 << 20,
    request_seconds=600,
    reply_seconds=600,
    head_seconds=600,
    idle_seconds=600,
    connections=8,
    head_bytes=4096,
    headers=20,
)
HOST = b"Host: x\r\n"


def address(port: int) -> SocketAddress:
    return SocketAddress("127.0.0.1", port, "HTTP")


async def echo(request: HttpRequest) -> HttpReply:
    try:
        body = await request.read()
    except HttpRequestError as error:
        return HttpReply(error.status, (str(error).encode(),), "text/plain")
    return HttpReply(200, (f"{request.method} {request.path} ".encode(), memoryview(body)), "text/plain")


@asynccontextmanager
async def serving(
    answer: Callable[[HttpRequest], Awaitable[HttpReply]] = echo,
    limits: HttpLimits = LIMITS,
    cors_origins: tuple[str, ...] = (),
) -> AsyncIterator[tuple[HttpServer, int]]:
    server, listener = HttpServer(answer, limits, cors_origins=cors_origins), address(0).listen()
    port = listener.getsockname()[1]
    await server.listen(listener)
    try:
        yield server, port
    finally:
        await server.close(0.2)


async def exchange(port: int, *parts: bytes) -> bytes:
    """Everything that the server says to these bytes until it closes; the caller listens once it has sent them all."""
    async with _connected(port) as (reader, writer):
        await _send(writer, parts)
        return await _heard(reader)


async def trickle(port: int, start: bytes, byte: bytes) -> bytes:
    """Everything that the server says until it closes, to a start and endless bytes after it, one at a time."""
    async with _connected(port) as (reader, writer):
        sending = asyncio.create_task(_send(writer, itertools.chain([start], itertools.repeat(byte))))
        try:
            return await _heard(reader)
        finally:
            sending.cancel()


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, parts: Iterable[bytes]) -> None:
    with suppress(ConnectionError, RuntimeError):  # closed meanwhile
        for part in parts:
            writer.write(part)
            await writer.drain()
            # So that parts arrive apart. No test fails where some arrive together.
            await asyncio.sleep(0.02)


async def _heard(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while piece := await reader.read(1 << 20):
            received += piece
    return received


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def post(body: bytes, *headers: bytes, path: bytes = b"/", close: bool = True) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *headers]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


def body_of(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]
