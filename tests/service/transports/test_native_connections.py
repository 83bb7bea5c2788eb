"""Connections to the native front end, made by a client that sends what no library would."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from urllib.parse import unquote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from birnn_native.front import Event, NativeFront, Order
from birnn_service.errors import Reason
from birnn_service.memory_budget import RETRY_SECONDS
from birnn_service.settings import Settings
from birnn_service.transports import native_server
from tests.service.transports.clock import PATIENCE_SECONDS
from tests.service.transports.http_exchange import until
from tests.service.transports.native_serving import (
    CONTINUATION,
    HEADERS,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    STREAM,
    UNARY,
    frame,
    greeted,
    is_answered,
    serving,
)
from tests.service.transports.raw_http2 import RawClient, connected, message

FLOODS = {
    "pings": lambda number: frame(PING, 0, 0, bytes(8)),
    "settings": lambda number: frame(SETTINGS, 0, 0, b""),
    "priorities": lambda number: frame(PRIORITY, 0, 2 * number + 1, bytes(4) + b"\1"),
    "resets": lambda number: (
        frame(HEADERS, 4, 2 * number + 1, b"\x83\x86\x44\x01/") + frame(RESET, 0, 2 * number + 1, bytes(4))
    ),
    "heads without an end": lambda number: frame(CONTINUATION if number else HEADERS, 0, 1, b"" if number else b"\x83"),
}


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 0, 1, b"\x82"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 4, 1, b"\x83" * 9)[:9],
    ],
    ids=["nothing", "half a preface", "no settings", "half a head", "half a frame"],
)
async def test_connections_that_do_not_get_anywhere_are_ended(sent: bytes) -> None:
    async with serving(max_head_seconds=0.2) as served, connected(served.port) as client:
        client.write(sent)
        await client.ended()
        assert await is_answered(served.port)


@pytest.mark.parametrize("kind", FLOODS)
async def test_floods_end_their_connection_and_no_other(kind: str) -> None:
    async with serving() as served, greeted(served.port) as client, greeted(served.port) as other:
        held = other.call(UNARY)
        other.send(held, message(b"held"), end=True)
        client.write(b"".join(FLOODS[kind](number) for number in range(3000)))
        await client.ended()
        served.answers.released.set()
        assert await other.status(held) == (0, "")
        assert await is_answered(served.port)


async def test_what_is_no_call_is_refused() -> None:
    async with serving() as served, greeted(served.port) as client:
        unknown = client.call("/test/Nothing")
        assert await client.status(unknown) == (12, "Method not found!")
        plain, get = client.call(UNARY, kind="application/json"), client.call(UNARY, method="GET")
        for stream, status in ((plain, "415"), (get, "405")):
            await client.until(partial(client.over.__contains__, stream))
            assert client.fields[stream][":status"] == status
        for timeout in ("", "S", "1", "1x", "123456789S", "-1S"):
            code, text = await client.status(client.call(UNARY, ("grpc-timeout", timeout)))
            assert code == 3
            assert "grpc-timeout" in text
        for timeout in ("0S", "00n"):
            assert await client.status(client.call(UNARY, ("grpc-timeout", timeout))) == (4, "Deadline Exceeded")
        large = client.call(UNARY, *((f"name-{number}", "x" * 1000) for number in range(17)))
        code, text = await client.status(large)
        assert code == 8
        assert "16384" in text
        assert await is_answered(served.port)


async def test_connections_are_bounded_and_make_room_when_they_end() -> None:
    # Three quarters of four are for one caller.
    async with serving(max_connections=4) as served, greeted(served.port), greeted(served.port):
        async with greeted(served.port):
            async with connected(served.port) as refused:
                refused.greet()
                await refused.ended()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(UNARY)(b"hello", timeout=PATIENCE_SECONDS)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert served.server.refused_connections >= 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await can_call(served.port):
                pass


async def can_call(port: int) -> bool:
    try:
        return await is_answered(port)
    except (AssertionError, ConnectionError):
        return False


async def test_what_waits_to_be_admitted_is_bounded() -> None:
    # A sixteenth of the memory, 12 MiB of it for one caller. Streams that are not read from hold 64 KiB.
    async with serving(memory_mib=256, stream_window=1) as served:
        clients: list[RawClient] = []
        refused = 0
        async with contextful(served.port, 3, clients):
            streams = [(client, client.call(STREAM)) for client in clients for _ in range(100)]
            for client, stream in streams:
                await client.send_all(stream, message(b"held") + message(bytes(1000)) * 64)
            await until(lambda: served.answers.begun > 100)
            for client, stream in streams[-20:]:
                status, text = await client.status(stream)
                refused += status == 8 and "--memory-mib" in text
                assert retry_seconds(client.fields[stream]) == RETRY_SECONDS
            assert refused == 20
            counted = served.metrics.requests.labels("", "", "", "RESOURCE_EXHAUSTED")
            by_reason = served.metrics.refused.labels("", "", Reason.MEMORY)
            await until(lambda: counted.value >= 20 and by_reason.value >= 20)
            served.answers.released.set()
        await until(lambda: served.endpoint.under_way == 0)
        assert await is_answered(served.port)


async def test_calls_that_wait_for_python_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_server, "PENDING", 0)
    async with serving(max_calls=1) as served, greeted(served.port) as client:
        held, refused = client.call(UNARY), client.call(UNARY)
        status, text = await client.status(refused)
        assert (status, text) == (8, "this server has 1 calls waiting, its limit (by --max-calls); retry later")
        assert retry_seconds(client.fields[refused]) == RETRY_SECONDS
        client.send(held, message(b"hello"), end=True)
        assert await client.status(held) == (0, "")
        assert await is_answered(served.port)


def retry_seconds(fields: Mapping[str, str]) -> float:
    """When to retry, by the status in the trailers of a call; what else they say agrees with it."""
    details = fields["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert (str(status.code), status.message) == (fields["grpc-status"], unquote(fields["grpc-message"]))
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    seconds = float(retry.retry_delay.ToTimedelta().total_seconds())
    assert fields["grpc-retry-pushback-ms"] == f"{seconds * 1000:.0f}"
    return seconds


async def test_a_front_end_that_fails_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    polls = {number for number, kind in descriptors() if kind == "anon_inode:[eventpoll]"}
    async with serving() as served:
        (poll,) = {number for number, kind in descriptors() if kind == "anon_inode:[eventpoll]"} - polls
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, poll)
        os.close(nothing)
        served.server.order(1 << 32 | 1, Order.TOOK)  # wakes it
        await until(lambda: not served.state.ready)
        assert "epoll_wait" in served.state.reason
    assert "not ready until this process is started again" in caplog.text


def descriptors() -> list[tuple[int, str]]:
    """The files that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


@asynccontextmanager
async def contextful(port: int, count: int, clients: list[RawClient]) -> AsyncIterator[None]:
    if count == 0:
        yield
        return
    async with greeted(port) as client, contextful(port, count - 1, clients):
        clients.append(client)
        yield


async def test_trailers_of_requests_count_for_nothing() -> None:
    async with serving(memory_mib=256) as served, greeted(served.port) as client:
        for _ in range(10):
            stream = client.call(STREAM)
            client.send(stream, message(b"hello"))
            client.http2.send_headers(stream, [("name", "x" * 10_000)], end_stream=True)
            client.flush()
            assert await client.status(stream) == (0, "")
            assert client.content[stream] == message(b"hello")
        assert await is_answered(served.port)


async def test_old_connections_are_asked_to_end_and_calls_finish() -> None:
    async with serving(max_connection_seconds=0.3) as served, greeted(served.port) as client:
        stream = client.call(STREAM)
        client.send(stream, message(b"first"))
        await client.until(lambda: client.farewell is not None)
        assert client.farewell == 0
        client.send(stream, message(b"second"), end=True)
        assert await client.status(stream) == (0, "")
        assert client.content[stream] == message(b"first") + message(b"second")
        await client.ended()
        assert await is_answered(served.port)


async def test_a_shutdown_lets_replies_be_sent() -> None:
    async with serving() as served, greeted(served.port) as client:
        stream = client.call(UNARY)
        client.send(stream, message(b"held"), end=True)
        await until(lambda: served.answers.begun == 1)
        closing = asyncio.create_task(served.server.close())
        await client.until(lambda: client.farewell == 0)
        served.answers.released.set()
        assert await client.status(stream) == (0, "")
        await client.ended()
        await closing
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", served.port)


async def test_it_listens_on_an_address_of_ipv6(on_ipv6: Settings) -> None:
    async with (
        serving(host=on_ipv6.host) as served,
        grpc.aio.insecure_channel(f"[::1]:{served.port}") as channel,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        assert await channel.unary_unary(UNARY)(b"hello") == b"hello"
        assert served.answers.callers == {"ipv6:::/64"}


class Short:
    """`NativeFront.take` where memory is short for some tries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
        self.failures, self.tries = failures, 0
        self._take = NativeFront.take
        monkeypatch.setattr(NativeFront, "take", lambda front: self.take(front))

    def take(self, front: NativeFront) -> list[Event]:
        self.tries += 1
        if self.tries <= self.failures:
            raise MemoryError
        return self._take(front)


async def test_calls_are_taken_once_there_is_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        short = Short(monkeypatch, failures=3)
        assert await is_answered(served.port)
        assert short.tries > 3


async def test_while_memory_is_short_the_event_loop_is_not_kept_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_server, "SHORT_SECONDS", 3600)
    async with serving() as served:
        short = Short(monkeypatch, failures=1)
        async with connected(served.port) as client:
            client.greet(None)
            client.call(UNARY)
            await until(lambda: short.tries == 1)
            for _ in range(100):
                await asyncio.sleep(0)
            assert short.tries == 1
