import asyncio
from dataclasses import replace

import pytest

from birnn_service.transports.http_message import HttpReply, HttpRequest
from tests.service.transports.clock import PATIENCE_SECONDS, forward
from tests.service.transports.http_exchange import LIMITS, body_of, exchange, post, serving, status, until


async def test_answers_with_the_pieces_of_a_reply() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, post(b"abc", path=b"/a%20b?q=1"))
    assert (status(reply), body_of(reply)) == (200, b"POST /a b abc")
    assert b"content-length: 13\r\n" in reply
    assert b"server:" not in reply


async def test_an_answer_may_take_any_time() -> None:
    async def slow(request: HttpRequest) -> HttpReply:
        await request.read()
        # All other limits have passed once the server has looked, and closed a connection that says nothing.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: server.connections == 2)
        forward(10**6)
        assert await reader.read() == b""
        writer.close()
        return HttpReply(200, (b"done",))

    limits = replace(LIMITS, connection_seconds=10**9)
    async with serving(slow, limits) as (server, port), asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Nor does it cost the connection.
        for _ in range(2):
            writer.write(post(b"a", close=False))
            assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_reply_that_is_not_taken_ends_the_connection_and_only_then_the_call() -> None:
    left: list[int] = []

    async def large(request: HttpRequest) -> HttpReply:
        request.at_end(lambda: left.append(server.connections))
        return HttpReply(200, (bytes(1 << 26),))

    async with serving(large, replace(LIMITS, reply_seconds=0.5)) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(post(b"", close=False))
        await until(lambda: left)
        assert left == [0]
        writer.close()


@pytest.mark.parametrize("close", [False, True])
async def test_a_reply_that_is_taken_slowly_arrives(close: bool) -> None:
    ended = asyncio.Event()

    async def large(request: HttpRequest) -> HttpReply:
        request.at_end(ended.set)
        return HttpReply(200, (bytes(1 << 24), b"end"))

    async with serving(large, replace(LIMITS, idle_seconds=1)) as (_, port), asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(post(b"", close=close))
        await reader.readuntil(b"\r\n\r\n")
        # Longer than a connection may be idle, and this one is not.
        await asyncio.sleep(1.5)
        assert not ended.is_set()
        body = await reader.read(-1)
        assert len(body) == (1 << 24) + 3
        assert body.endswith(b"\0end")
        await ended.wait()
        writer.close()


async def test_an_exception_is_a_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest) -> HttpReply:
        raise ZeroDivisionError

    async with serving(fail) as (_, port):
        assert status(await exchange(port, post(b""))) == 500
    assert "failed unexpectedly" in caplog.text
