"""Streams over a real server of grpcio's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from birnn_service.call import Call, Exchange, Method
from birnn_service.conversation import parsed
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.transports import departures
from birnn_service.transports.grpc_server import GrpcServer
from tests.service.test_endpoint import endpoint_of
from tests.service.transports.clock import PATIENCE_SECONDS, forward
from tests.service.transports.http_exchange import until

REPLY_SECONDS = 600


class Answers:
    """Answers that can be told from outside."""

    def __init__(self) -> None:
        self.begun, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: bytes, call: Call) -> bytes:
        """Answer once released, with more than a connection takes unread, or after so many seconds."""
        if request == b"held":
            self.begun.set()
            await self.released.wait()
        elif request == b"large":
            return bytes(1 << 24)
        else:
            await asyncio.sleep(float(request))
        return request


@asynccontextmanager
async def serving(answers: Answers, *, ordered: bool) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """The address of a server of one stream, and how many requests are under way."""
    settings = load_settings({"grpc_port": 0, "max_reply_seconds": REPLY_SECONDS})
    endpoint = endpoint_of(settings)
    exchange = Exchange(
        "Stream",
        lambda message: (message, message),
        Method("Stream", parsed, answers, lambda request: ("", "")),
        lambda _, error: error.message.encode(),
        ordered,
    )
    server = GrpcServer(endpoint, {"test": [exchange]}, settings.grpc_address, settings)
    port = await server.listen()
    try:
        yield f"127.0.0.1:{port}", lambda: endpoint.under_way
    finally:
        await server.close()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seconds", ["0", "0.03", "999"])
async def test_callers_may_leave_their_streams_and_lose_nothing_else(
    ordered: bool, seconds: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "LOOK_SECONDS", 0.01)
    answers = Answers()
    async with (
        serving(answers, ordered=ordered) as (address, under_way),
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as apart,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        stream = channel.stream_stream("/test/Stream")
        # Of the same connection, and under way all the time.
        other = stream()
        await other.write(b"held")
        await answers.begun.wait()
        for number in range(20):
            left = stream()
            for place in range(30):
                await left.write(seconds.encode() + b"0" * (1 + place if "." in seconds else 0))
            await asyncio.sleep(0.002 * number)
            left.cancel()
        await until(lambda: under_way() == 1)
        assert [record.getMessage() for record in caplog.records] == []
        # Replies that are not taken in time end connections: this one's alone.
        unread = apart.stream_stream("/test/Stream")()
        await unread.write(b"large")
        while not caplog.records:
            forward(2 * REPLY_SECONDS)
            await asyncio.sleep(0.05)
        answers.released.set()
        assert await other.read() == b"held"
        await other.done_writing()
        assert await other.code() is grpc.StatusCode.OK
    (record,) = caplog.records
    assert "has not taken a reply within 600 s (--max-reply-seconds): its connection was ended" in record.getMessage()


async def test_it_listens_on_an_address_of_ipv6(on_ipv6: Settings) -> None:
    settings = on_ipv6
    server = GrpcServer(endpoint_of(settings), {}, settings.grpc_address, settings)
    port = await server.listen()
    try:
        async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), PATIENCE_SECONDS)
    finally:
        await server.close()
