"""Streams over a real server of grpcio's."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from birnn_service.call import Call, Exchange, Method
from birnn_service.conversation import parsed
from birnn_service.errors import StartupError
from birnn_service.settings import load_settings
from birnn_service.transports.grpc_server import GrpcServer
from tests.service.test_endpoint import endpoint_of

REPLY_SECONDS = 0.2


@asynccontextmanager
async def serving(*, ordered: bool) -> AsyncIterator[tuple[grpc.aio.Channel, Callable[[], int]]]:
    """A channel to a server of one stream, whose requests are answered with themselves after so many seconds."""

    async def answer(request: bytes, call: Call) -> bytes:
        await asyncio.sleep(float(request))
        return request

    settings = load_settings({"grpc_port": 0, "max_reply_seconds": REPLY_SECONDS})
    endpoint = endpoint_of(settings)
    exchange = Exchange(
        "Stream",
        lambda message: (message, message),
        Method("Stream", parsed, answer, lambda request: ("", "")),
        lambda _, error: error.message.encode(),
        ordered,
    )
    server = GrpcServer(endpoint, {"test": [exchange]}, settings.grpc_address, settings)
    port = await server.listen()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, lambda: endpoint.under_way
    finally:
        await server.close()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seconds", ["0", "0.03", "9"])
async def test_callers_may_leave_their_streams_and_lose_nothing_else(
    ordered: bool, seconds: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(ordered=ordered) as (channel, under_way):
            stream = channel.stream_stream("/test/Stream")
            # Of the same connection, and under way all the time.
            other = stream(timeout=60)
            await other.write(b"1.5")
            for number in range(20):
                left = stream(timeout=60)
                for place in range(30):
                    await left.write(seconds.encode() + b"0" * (1 + place if "." in seconds else 0))
                await asyncio.sleep(0.002 * number)
                left.cancel()
            await asyncio.sleep(4 * REPLY_SECONDS)
            assert under_way() <= 1
            assert await other.read() == b"1.5"
            await other.done_writing()
            assert await other.code() is grpc.StatusCode.OK
    assert [record.getMessage() for record in caplog.records] == []


async def test_it_listens_on_an_address_of_ipv6() -> None:
    settings = load_settings({"host": "::1", "grpc_port": 0})
    try:
        settings.grpc_address.check()
    except StartupError:
        pytest.skip("this machine has no ::1")
    server = GrpcServer(endpoint_of(settings), {}, settings.grpc_address, settings)
    port = await server.listen()
    try:
        async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
    finally:
        await server.close()
