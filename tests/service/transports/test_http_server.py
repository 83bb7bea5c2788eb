import asyncio

import pytest

from birnn_service.transports.http_message import HttpReply, HttpRequest
from birnn_service.transports.http_server import HttpServer
from tests.service.transports.http_exchange import LIMITS, address, body_of, exchange, post, serving


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
