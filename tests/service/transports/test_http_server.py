import asyncio

from birnn_service.transports.http_message import HttpReply, HttpRequest
from birnn_service.transports.http_server import HttpServer
from tests.service.transports.clock import PATIENCE_SECONDS
from tests.service.transports.http_exchange import LIMITS, address, body_of, exchange, post, serving


async def test_a_caller_who_leaves_cancels_its_call() -> None:
    begun, cancelled, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(request: HttpRequest) -> HttpReply:
        request.at_end(ended.set)
        await request.read()
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return HttpReply(200, ())

    async with serving(wait) as (_, port), asyncio.timeout(PATIENCE_SECONDS):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"x"))
        await begun.wait()
        assert not ended.is_set()
        writer.close()
        await cancelled.wait()
        await ended.wait()


async def test_draining_finishes_what_is_under_way() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(request: HttpRequest) -> HttpReply:
        begun.set()
        await release.wait()
        return HttpReply(200, (b"done",))

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return True
        writer.close()
        return False

    server, listener = HttpServer(wait, LIMITS), address(0).listen()
    port = listener.getsockname()[1]
    await server.listen(listener)
    call = asyncio.create_task(exchange(port, post(b"", close=False)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await begun.wait()
        closing = asyncio.create_task(server.close(PATIENCE_SECONDS))
        while not await refused():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not closing.done()
        release.set()
        reply = await call
        assert body_of(reply) == b"done"
        assert b"connection: close" in reply
        await closing


async def test_closing_does_not_wait_longer_than_it_may() -> None:
    begun = asyncio.Event()

    async def forever(request: HttpRequest) -> HttpReply:
        begun.set()
        await asyncio.Event().wait()
        return HttpReply(200, ())

    async with serving(forever) as (server, port), asyncio.timeout(PATIENCE_SECONDS):
        call = asyncio.create_task(exchange(port, post(b"")))
        await begun.wait()
        await server.close(0.2)
        assert await call == b""
