import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from birnn_service.errors import InvalidRequestError, OverloadedError, StartupError
from birnn_service.transports.http_message import HttpLimits, HttpReply, HttpRequest, HttpRequestError
from birnn_service.transports.http_server import HttpServer
from birnn_service.transports.socket_address import SocketAddress

LIMITS = HttpLimits(
    body_bytes=1 << 20,
    request_seconds=0.5,
    reply_seconds=0.5,
    head_seconds=0.5,
    idle_seconds=1,
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


async def exchange(port: int, *parts: bytes, seconds: float = 5.0) -> bytes:
    """Everything that the server says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        async with asyncio.timeout(seconds):
            for part in parts:
                with suppress(ConnectionError, RuntimeError):  # closed meanwhile
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.02)
            received = b""
            with suppress(ConnectionError):
                while piece := await reader.read(1 << 20):
                    received += piece
            return received
    finally:
        writer.close()


def post(body: bytes, *headers: bytes, path: bytes = b"/", close: bool = True) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *headers]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


def body_of(reply: bytes) -> bytes:
    return reply.partition(b"\r\n\r\n")[2]


async def test_answers_with_the_pieces_of_a_reply() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, post(b"abc", path=b"/a%20b?q=1"))
    assert (status(reply), body_of(reply)) == (200, b"POST /a b abc")
    assert b"content-length: 13\r\n" in reply
    assert b"server:" not in reply


async def test_a_connection_serves_many_requests_one_after_another() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, post(b"a", close=False), post(b"b", close=False), post(b"c"))
    assert reply.count(b"HTTP/1.1 200") == 3


async def test_a_chunked_body_arrives_whole() -> None:
    chunked = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, chunked, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\ntrailer: x\r\n\r\n")
    assert body_of(reply) == b"POST / abcde"


async def test_a_large_body_comes_through_and_a_larger_one_does_not() -> None:
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(b"x" * (1 << 20)))) == b"POST / " + b"x" * (1 << 20)
        reply = await exchange(port, post(b"x" * ((1 << 20) + 1)))
    assert status(reply) == 413
    assert b"--max-message-mib" in reply


async def test_endless_chunks_are_refused_once_they_are_too_many_bytes() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, head, *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 20)
    assert status(reply) == 413


async def test_tiny_chunks_are_refused() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, head + b"1\r\nx\r\n" * 5000)
    assert status(reply) == 400
    assert b"chunks" in reply


async def test_endless_extensions_of_a_chunk_are_refused() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;"
    async with serving() as (_, port):
        reply = await exchange(port, head, *[b"x" * (1 << 18)] * 6)
    assert status(reply) == 400


async def test_a_call_can_be_refused_before_its_body_is_read() -> None:
    async def refuse(request: HttpRequest) -> HttpReply:
        return HttpReply(429, (b"later",), "text/plain")

    async with serving(refuse) as (_, port):
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        reply = await exchange(port, head)
        assert status(reply) == 429
        assert b"100 Continue" not in reply
        # What follows would be taken for the body, so callers are told to send nothing more.
        assert b"\r\nconnection: close\r\n" in reply
        # A caller who sends all the same reads the reply, too.
        assert status(await exchange(port, head, *[b"x" * 10_000] * 20)) == 429


async def test_a_caller_is_asked_to_continue_when_its_body_is_read() -> None:
    async with serving() as (_, port):
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
        reply = await exchange(port, head, b"x")
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


async def test_memory_is_asked_for_while_the_body_arrives() -> None:
    asked: list[int] = []

    async def answer(request: HttpRequest) -> HttpReply:
        def grow(size: int) -> None:
            asked.append(size)
            if sum(asked) > 300_000:
                raise OverloadedError("full", 1.0)

        try:
            await request.read(grow)
        except OverloadedError:
            return HttpReply(429, ())
        return HttpReply(200, ())

    async with serving(answer) as (_, port):
        assert status(await exchange(port, post(b"x" * 1_000_000))) == 429
    assert sum(asked) < 1_000_000


async def test_gzip_is_unpacked_within_bounds() -> None:
    packed = b"Content-Encoding: gzip"
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(gzip.compress(b"abc"), packed))) == b"POST / abc"
        whole = os.urandom(900_000)
        assert body_of(await exchange(port, post(gzip.compress(whole), packed))) == b"POST / " + whole
        assert status(await exchange(port, post(gzip.compress(bytes(1 << 20)), packed))) == 200
        assert status(await exchange(port, post(gzip.compress(bytes((1 << 20) + 1)), packed))) == 413
        assert status(await exchange(port, post(gzip.compress(bytes(1 << 26)), packed))) == 413
        assert status(await exchange(port, post(gzip.compress(b"abc")[:-1], packed))) == 400
        assert status(await exchange(port, post(gzip.compress(b"abc") + b"x", packed))) == 400
        assert status(await exchange(port, post(b"abc", packed))) == 400
        assert status(await exchange(port, post(b"abc", b"Content-Encoding: br"))) == 415


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", b"POST", b"POST / HTTP/1.1\r\nHost: x", b"POST / HTTP/1.1\r\nA: b\r\n"]
)
async def test_heads_have_a_deadline(start: bytes) -> None:
    async with serving() as (_, port):
        reply = await exchange(port, start, seconds=3)
        assert status(reply) in (0, 408)
        # One byte every now and then makes no difference.
        assert status(await exchange(port, *[start, *[b"\r\n" if start == b"\r\n" else b"x"] * 60], seconds=4)) != 200


async def test_the_head_of_a_later_request_has_a_deadline_too() -> None:
    async with serving(limits=replace(LIMITS, idle_seconds=60)) as (_, port):
        reply = await exchange(port, post(b"a", close=False), b"POST / HTTP", seconds=3)
        assert reply.count(b"HTTP/1.1 200") == 1
        assert b"408" in reply
        reply = await exchange(port, post(b"a", close=False), b"\r\n", seconds=3)
        assert reply.count(b"HTTP/1.1") == 1


async def test_bodies_have_a_deadline() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n", *[b"x"] * 9, seconds=5)
    assert status(reply) == 408


async def test_a_slow_answer_has_none() -> None:
    async def slow(request: HttpRequest) -> HttpReply:
        await request.read()
        await asyncio.sleep(1.5)
        return HttpReply(200, (b"done",))

    async with serving(slow) as (_, port):
        assert body_of(await exchange(port, post(b"a"))) == b"done"


async def test_an_idle_connection_is_closed() -> None:
    async with serving() as (server, port):
        reply = await exchange(port, post(b"a", close=False), seconds=3)
        assert status(reply) == 200
        assert server.connections == 0


async def test_heads_have_a_size() -> None:
    async with serving() as (_, port):
        assert status(await exchange(port, post(b"", b"A: " + b"x" * 8192))) == 431
        assert status(await exchange(port, post(b"", *[b"A: b"] * 10_000))) == 431
        assert status(await exchange(port, post(b"", path=b"/" + b"x" * 8192))) == 431
        endless = [b"POST / HTTP/1.1\r\nA: ", *[b"x" * 1000] * 10]
        assert status(await exchange(port, *endless)) == 431
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n"
        assert status(await exchange(port, chunked + b"A: b\r\n" * 100 + b"\r\n")) == 431


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\nContent-Length: 3\n\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdefghi",
        b"POST /\xff HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"FROB / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_what_is_no_request_of_ours_ends_the_connection(head: bytes) -> None:
    async with serving() as (_, port):
        reply = await exchange(port, head, post(b"smuggled"))
    assert b"smuggled" not in reply
    assert reply.count(b"HTTP/1.1") == 1
    assert status(reply) in (200, 400, 405, 501)
    assert (status(reply) == 200) == head.endswith(b"abcdefghi")


async def test_other_transfer_encodings_are_refused() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert status(reply) == 501


async def test_an_offer_of_http_2_is_declined() -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    request = post(b"abc", *offer, close=False)
    async with serving() as (_, port):
        assert b"POST / abc" in await exchange(port, request)
        apart = await exchange(port, request[:-3], request[-3:], post(b"next"))
        assert apart.count(b"HTTP/1.1 200") == 2
        assert apart.endswith(b"POST / next")
        byte_by_byte = await exchange(
            port, *[bytes([byte]) for byte in post(b"abc", *offer, close=False)[:20]], seconds=3
        )
        assert status(byte_by_byte) == 408
        get = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert b"GET /v2 " in await exchange(port, get)


@pytest.mark.parametrize("target", [b"http://host/a", b"/%61"])
async def test_forms_of_a_target(target: bytes) -> None:
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(b"", path=target))) == b"POST /a "


@pytest.mark.parametrize("target", [b"//a", b"/../a", b"/%2e%2e/a", b"/%ff", b"/a%00", b"/a;b"])
async def test_odd_targets_are_answered(target: bytes) -> None:
    async with serving() as (_, port):
        assert status(await exchange(port, post(b"", path=target))) == 200


async def test_http_1_0_is_answered_and_closed() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    assert body_of(reply) == b"POST / x"


async def test_requests_sent_ahead_are_answered_in_order_and_bounded() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"".join(post(b"%d" % number, close=False) for number in range(6)))
        found = [reply.find(b"POST / %d" % number) for number in range(6)]
        assert found == sorted(found)
        assert found[0] > 0
        reply = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        assert 0 < reply.count(b"HTTP/1.1 200") < 20


async def test_a_reply_before_the_request_sent_ahead_is_whole_does_not_end_the_connection() -> None:
    later = asyncio.Event()

    async def answer(request: HttpRequest) -> HttpReply:
        await later.wait()
        return await echo(request)

    async with serving(answer) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        second = post(b"ab")
        writer.write(post(b"1", close=False) + second[:-1])
        await asyncio.sleep(0.1)
        later.set()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head
        writer.write(second[-1:])
        rest = await asyncio.wait_for(reader.read(), 5)
        assert (rest[:8], status(rest[8:])) == (b"POST / 1", 200)
        assert rest.endswith(b"POST / ab")
        writer.close()


async def test_a_caller_who_leaves_cancels_its_call() -> None:
    begun, cancelled, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(request: HttpRequest) -> HttpReply:
        request.at_end(ended.set)
        await request.read()
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return HttpReply(200, ())

    async with serving(wait) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"x"))
        await asyncio.wait_for(begun.wait(), 5)
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 5)
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_reply_that_is_not_taken_ends_the_connection_and_only_then_the_call() -> None:
    ended = asyncio.Event()

    async def large(request: HttpRequest) -> HttpReply:
        request.at_end(ended.set)
        return HttpReply(200, (bytes(1 << 26),))

    async with serving(large) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(post(b"", close=False))
        await asyncio.sleep(0.3)
        assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0.1)
        assert server.connections == 0
        writer.close()


async def test_a_reply_that_is_taken_slowly_arrives() -> None:
    async def large(request: HttpRequest) -> HttpReply:
        return HttpReply(200, (bytes(1 << 24), b"end"))

    async with serving(large) as (_, port):
        assert body_of(await exchange(port, post(b""))).endswith(b"\0end")


async def test_connections_are_bounded_and_those_that_wait_go_first() -> None:
    async with serving(limits=replace(LIMITS, head_seconds=30)) as (_, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        await asyncio.sleep(0.1)
        # One caller has three quarters of eight connections.
        assert status(await exchange(port, post(b""))) == 503
        idle[0][1].close()
        await asyncio.sleep(0.1)
        assert status(await exchange(port, post(b""))) == 200
        for _, writer in idle[1:]:
            writer.close()


async def test_an_old_connection_ends_with_its_next_reply() -> None:
    async with serving(limits=replace(LIMITS, connection_seconds=0.1)) as (_, port):
        first = post(b"a", close=False)
        reply = await exchange(port, b"", *[b""] * 10, first, first)
    assert reply.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in reply


async def test_draining_finishes_what_is_under_way() -> None:
    release = asyncio.Event()

    async def wait(request: HttpRequest) -> HttpReply:
        await release.wait()
        return HttpReply(200, (b"done",))

    server, listener = HttpServer(wait, LIMITS), address(0).listen()
    port = listener.getsockname()[1]
    await server.listen(listener)
    call = asyncio.create_task(exchange(port, post(b"", close=False)))
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(server.close(5))
    await asyncio.sleep(0.3)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    release.set()
    reply = await call
    assert body_of(reply) == b"done"
    assert b"connection: close" in reply
    await asyncio.wait_for(closing, 2)


async def test_closing_does_not_wait_longer_than_it_may() -> None:
    async def forever(request: HttpRequest) -> HttpReply:
        await asyncio.sleep(60)
        return HttpReply(200, ())

    async with serving(forever) as (server, port):
        call = asyncio.create_task(exchange(port, post(b"")))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await server.close(0.2)
        assert await call == b""


async def test_an_exception_is_a_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest) -> HttpReply:
        raise ZeroDivisionError

    async with serving(fail) as (_, port):
        assert status(await exchange(port, post(b""))) == 500
    assert "failed unexpectedly" in caplog.text


async def test_pages_of_listed_origins_may_call() -> None:
    async with serving(cors_origins=("https://app.example",)) as (_, port):
        asks = b"OPTIONS / HTTP/1.1\r\nConnection: close\r\nOrigin: %b\r\nAccess-Control-Request-Method: POST\r\n"
        asks += b"Access-Control-Request-Headers: authorization\r\n\r\n"
        reply = await exchange(port, asks % b"https://app.example")
        assert status(reply) == 204
        assert b"access-control-allow-origin: https://app.example\r\n" in reply
        assert b"access-control-allow-headers: authorization\r\n" in reply
        assert b"allow-origin" not in await exchange(port, asks % b"https://evil.example")
        assert b"access-control-allow-origin" in await exchange(port, post(b"", b"Origin: https://app.example"))
    async with serving() as (_, port):
        assert b"allow-origin" not in await exchange(port, post(b"", b"Origin: https://app.example"))


@pytest.mark.parametrize(("value", "expected"), [("1", 1.0), ("0.25", 0.25), ("60.000", 60.0)])
async def test_a_timeout_is_seconds(value: str, expected: float) -> None:
    assert request_with({"x-request-timeout": value}).timeout == expected
    assert request_with({}).timeout is None


@pytest.mark.parametrize("value", ["0", "-1", "1e3", "inf", "nan", "", "1s", "1_0", "٣"])
async def test_other_timeouts_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="X-Request-Timeout"):
        _ = request_with({"x-request-timeout": value}).timeout


def request_with(headers: dict[str, str]) -> HttpRequest:
    async def read(grow: object) -> bytes:
        return b""

    return HttpRequest("GET", "/", "", headers, "ipv4:127.0.0.1", 0, read)


def test_a_taken_port_is_said_to_be_taken() -> None:
    with address(0).listen() as taken:
        taken.listen()
        with pytest.raises(StartupError, match="--http-port"):
            address(taken.getsockname()[1]).listen()


def test_processes_of_one_server_share_a_port() -> None:
    with address(0).listen(share=True) as first:
        address(first.getsockname()[1]).listen(share=True).close()
