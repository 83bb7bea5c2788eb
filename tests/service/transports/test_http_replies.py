import asyncio

import pytest

from birnn_service.transports.http_message import HttpReply, HttpRequest
from tests.service.transports.http_exchange import body_of, exchange, post, serving, status


async def test_answers_with_the_pieces_of_a_reply() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, post(b"abc", path=b"/a%20b?q=1"))
    assert (status(reply), body_of(reply)) == (200, b"POST /a b abc")
    assert b"content-length: 13\r\n" in reply
    assert b"server:" not in reply


async def test_a_slow_answer_has_none() -> None:
    async def slow(request: HttpRequest) -> HttpReply:
        await request.read()
        await asyncio.sleep(1.5)
        return HttpReply(200, (b"done",))

    async with serving(slow) as (_, port):
        assert body_of(await exchange(port, post(b"a"))) == b"done"


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


async def test_an_exception_is_a_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest) -> HttpReply:
        raise ZeroDivisionError

    async with serving(fail) as (_, port):
        assert status(await exchange(port, post(b""))) == 500
    assert "failed unexpectedly" in caplog.text
