import asyncio
from dataclasses import replace

from birnn_service.transports.http_message import HttpReply, HttpRequest
from tests.service.transports.clock import PATIENCE_SECONDS
from tests.service.transports.http_exchange import LIMITS, echo, exchange, post, serving, status, until


async def test_a_connection_serves_many_requests_one_after_another() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, post(b"a", close=False), post(b"b", close=False), post(b"c"))
    assert reply.count(b"HTTP/1.1 200") == 3


async def test_an_idle_connection_is_closed() -> None:
    async with serving(limits=replace(LIMITS, idle_seconds=1)) as (server, port):
        assert status(await exchange(port, post(b"a", close=False))) == 200
        await until(lambda: server.connections == 0)


async def test_requests_sent_ahead_are_answered_in_order_and_bounded() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"".join(post(b"%d" % number, close=number == 5) for number in range(6)))
        found = [reply.find(b"POST / %d" % number) for number in range(6)]
        assert found == sorted(found)
        assert found[0] > 0
        reply = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        assert 0 < reply.count(b"HTTP/1.1 200") < 20


async def test_a_reply_before_the_request_sent_ahead_is_whole_does_not_end_the_connection() -> None:
    begun, later = asyncio.Event(), asyncio.Event()

    async def answer(request: HttpRequest) -> HttpReply:
        begun.set()
        await later.wait()
        return await echo(request)

    async with serving(answer) as (_, port), asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        second = post(b"ab")
        writer.write(post(b"1", close=False) + second[:-1])
        # What is sent at once arrives at once.
        await begun.wait()
        later.set()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head
        writer.write(second[-1:])
        rest = await reader.read()
        assert (rest[:8], status(rest[8:])) == (b"POST / 1", 200)
        assert rest.endswith(b"POST / ab")
        writer.close()


async def test_connections_are_bounded_and_those_that_wait_go_first() -> None:
    async with serving() as (server, port):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        await until(lambda: server.connections == 6)
        # One caller has three quarters of eight connections.
        assert status(await exchange(port, post(b""))) == 503
        assert server.refused_connections() == 1
        await until(lambda: server.connections == 6)
        idle[0][1].close()
        await until(lambda: server.connections == 5)
        assert status(await exchange(port, post(b""))) == 200
        for _, writer in idle[1:]:
            writer.close()


async def test_an_old_connection_ends_with_its_next_reply() -> None:
    async with serving(limits=replace(LIMITS, connection_seconds=0.1)) as (_, port):
        first = post(b"a", close=False)
        reply = await exchange(port, b"", *[b""] * 10, first, first)
    assert reply.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in reply
