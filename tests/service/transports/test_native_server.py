"""The native front end alone, with a client that sends what no library would."""

import asyncio
import gzip
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
import pytest

from birnn_native.front import load_front
from birnn_native.library import NativeUnavailableError
from birnn_service.call import Call, Exchange, Feed, Method
from birnn_service.conversation import parsed
from birnn_service.endpoint import Endpoint
from birnn_service.errors import OverloadedError, StartupError
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.transports.native_server import NativeServer
from tests.service.test_endpoint import endpoint_of
from tests.service.transports.clock import PATIENCE_SECONDS
from tests.service.transports.http_exchange import until
from tests.service.transports.raw_http2 import RawClient, connected, message

MIB = 1 << 20
HEADERS, RESET, SETTINGS, PING, CONTINUATION, PRIORITY = 1, 3, 4, 6, 9, 2
CALM, CANCEL = 11, 8
UNARY, STREAM = "/test/ModelInfer", "/test/Stream"

try:
    load_front()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)


@dataclass
class Answers:
    """Answers that can be told from outside."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    cancelled: int = 0
    seen: list[int] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)

    async def __call__(self, request: bytes, call: Call) -> bytes:
        self.begun += 1
        self.callers.add(call.caller)
        self.seen.append(len(request))
        if request == b"held":
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request == b"large":
            return bytes(MIB)
        if request == b"refused":
            raise OverloadedError("100 % of ü", 1.5)
        return request[:100]


@dataclass
class Served:
    """A server that takes calls."""

    port: int
    endpoint: Endpoint
    answers: Answers
    server: NativeServer


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Served]:
    """A server of one method and one stream."""
    answers = Answers()
    loaded: Settings = load_settings({"grpc_port": 0, **settings})
    endpoint = endpoint_of(loaded)
    methods: list[Method | Feed | Exchange] = [
        Method("ModelInfer", bytes, answers, lambda request: ("", "")),
        Exchange(
            "Stream",
            lambda content: (None, content),
            Method("Stream", parsed, answers, lambda request: ("", "")),
            lambda _, error: error.message.encode(),
            ordered=True,
        ),
    ]
    server = NativeServer(endpoint, {"test": methods}, loaded.grpc_address, loaded)
    port = await server.listen()
    try:
        yield Served(port, endpoint, answers, server)
    finally:
        await server.close()


@asynccontextmanager
async def greeted(port: int, window: int | None = None) -> AsyncIterator[RawClient]:
    """A connection that may call."""
    async with connected(port) as client:
        client.greet(window)
        await client.until(lambda: client.http2.remote_settings.max_concurrent_streams == 1024)
        yield client


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def is_answered(port: int) -> bool:
    async with greeted(port) as client:
        stream = client.call(UNARY)
        client.send(stream, message(b"hello"), end=True)
        assert await client.status(stream) == (0, "")
        return client.content[stream] == message(b"hello")


async def test_a_call_is_answered_and_its_request_id_comes_back() -> None:
    async with serving() as served, greeted(served.port) as client:
        stream = client.call(UNARY, ("x-request-id", "abc"))
        for byte in message(b"hello"):
            client.send(stream, bytes([byte]))
        assert await client.status(stream) == (0, "")
        assert client.content[stream] == message(b"hello")
        assert client.fields[stream]["x-request-id"] == "abc"
        # The request was not ended; the call was all the same.
        await client.until(lambda: client.resets.get(stream) == 0)
        await until(lambda: served.endpoint.under_way == 0)


async def test_errors_carry_what_clients_of_grpcio_read() -> None:
    async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY)(b"refused")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "100 % of ü"
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["grpc-retry-pushback-ms"] == "1500"
    assert b"RetryInfo" in bytes(trailers["grpc-status-details-bin"])


async def test_a_message_beyond_the_limit_is_refused_by_its_prefix() -> None:
    async with serving(max_message_mib=1) as served, greeted(served.port) as client:
        stream = client.call(UNARY)
        client.send(stream, struct.pack(">BI", 0, MIB + 1))
        text = f"SERVER: Received message larger than max ({MIB + 1} vs. {MIB})"
        assert await client.status(stream) == (8, text)
        whole = client.call(UNARY)
        await client.send_all(whole, message(bytes(MIB)), end=True)
        assert await client.status(whole) == (0, "")
        assert served.answers.seen == [MIB]


async def test_a_long_request_is_read_once_its_call_was_admitted() -> None:
    async with serving(max_calls=1) as served, greeted(served.port) as client:
        held = client.call(UNARY)
        client.send(held, message(b"held"), end=True)
        await until(lambda: served.answers.begun == 1)
        refused = client.call(UNARY)
        sent = client.send(refused, message(bytes(MIB)))
        status, text = await client.status(refused)
        assert (status, sent) == (8, 65535)
        assert "--max-calls" in text
        assert client.http2.local_flow_control_window(held) == 65535 - len(message(b"held"))
        served.answers.released.set()
        assert await client.status(held) == (0, "")


async def test_a_stream_is_not_read_from_while_its_window_is_full() -> None:
    async with serving(stream_window=1) as served, greeted(served.port) as client:
        stream = client.call(STREAM)
        client.send(stream, message(b"held"))
        await until(lambda: served.answers.begun == 1)
        sent = client.send(stream, message(bytes(1000)) * 100)
        assert sent == 65535 - len(message(b"held"))
        ping = client.http2
        ping.ping(b"12345678")
        client.flush()
        await client.until(lambda: client.http2.local_flow_control_window(stream) < 2048)
        assert served.answers.begun == 1
        served.answers.released.set()
        await client.send_all(stream, (message(bytes(1000)) * 100)[sent:], end=True)
        assert await client.status(stream) == (0, "")
        assert len(served.answers.seen) == 101


async def test_a_request_that_does_not_arrive_in_time_is_refused() -> None:
    async with serving(max_request_seconds=0.2) as served, greeted(served.port) as client:
        silent, partial, long = client.call(UNARY), client.call(UNARY), client.call(UNARY)
        client.send(partial, message(b"hello")[:7])
        client.send(long, message(bytes(MIB)))
        for stream in (silent, partial, long):
            assert await client.status(stream) == (3, "the request did not arrive within 0.2 s")


async def test_requests_that_end_too_early_are_invalid() -> None:
    async with serving() as served, greeted(served.port) as client:
        empty, partial = client.call(UNARY), client.call(UNARY)
        client.http2.end_stream(empty)
        client.send(partial, message(b"hello")[:7], end=True)
        assert await client.status(empty) == (3, "the call holds no request message")
        assert await client.status(partial) == (3, "the request ends within a message")


async def test_a_reply_counts_until_it_was_taken() -> None:
    async with serving() as served, greeted(served.port, window=0) as client:
        stream = client.call(UNARY)
        client.send(stream, message(b"large"), end=True)
        await client.until(lambda: client.fields[stream])
        assert await is_answered(served.port)
        assert served.endpoint.under_way == 1
        client.http2.increment_flow_control_window(2 * MIB)
        client.http2.increment_flow_control_window(2 * MIB, stream)
        client.flush()
        assert await client.status(stream) == (0, "")
        assert len(client.content[stream]) == len(message(bytes(MIB)))
        await until(lambda: served.endpoint.under_way == 0)


async def test_who_takes_no_reply_in_time_loses_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(max_reply_seconds=0.2) as served, greeted(served.port, window=0) as client:
        client.send(client.call(UNARY), message(b"large"), end=True)
        await client.ended()
        await until(lambda: served.endpoint.under_way == 0)
        assert await is_answered(served.port)
    assert "has not taken a reply within 0.2 s (--max-reply-seconds): its connection was ended" in caplog.text


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


FLOODS = {
    "pings": lambda number: frame(PING, 0, 0, bytes(8)),
    "settings": lambda number: frame(SETTINGS, 0, 0, b""),
    "priorities": lambda number: frame(PRIORITY, 0, 2 * number + 1, bytes(4) + b"\1"),
    "resets": lambda number: (
        frame(HEADERS, 4, 2 * number + 1, b"\x83\x86\x44\x01/") + frame(RESET, 0, 2 * number + 1, bytes(4))
    ),
    "heads without an end": lambda number: frame(CONTINUATION if number else HEADERS, 0, 1, b"" if number else b"\x83"),
}


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
        large = client.call(UNARY, *((f"name-{number}", "x" * 1000) for number in range(17)))
        code, text = await client.status(large)
        assert code == 8
        assert "16384" in text
        assert await is_answered(served.port)


async def test_packed_requests_are_bounded_by_what_they_unpack_to() -> None:
    async with serving(max_message_mib=1) as served, greeted(served.port) as client:

        async def status(encoding: str, content: bytes) -> tuple[int, str]:
            stream = client.call(UNARY, ("grpc-encoding", encoding))
            client.send(stream, message(content, flag=1), end=True)
            found = await client.status(stream)
            assert client.fields[stream]["grpc-accept-encoding"] == "identity,gzip"
            return found

        assert await status("gzip", gzip.compress(bytes(MIB))) == (0, "")
        code, text = await status("gzip", gzip.compress(bytes(MIB + 1)))
        assert code == 8
        assert "1 MiB (--max-message-mib)" in text
        assert (await status("gzip", b"no gzip"))[0] == 3
        assert (await status("snappy", b""))[0] == 12
        assert (await status("identity", b""))[0] == 13
        assert served.answers.seen == [MIB]


async def test_deadlines_and_cancellations_end_what_is_under_way() -> None:
    async with serving() as served, greeted(served.port) as client:
        expired, cancelled = client.call(UNARY, ("grpc-timeout", "200m")), client.call(UNARY)
        for stream in (expired, cancelled):
            client.send(stream, message(b"held"), end=True)
        await until(lambda: served.answers.begun == 2)
        client.http2.reset_stream(cancelled, CANCEL)
        client.flush()
        assert await client.status(expired) == (4, "Deadline Exceeded")
        await until(lambda: served.answers.cancelled == 2)
        assert served.endpoint.under_way == 0


async def test_connections_are_bounded_and_make_room_when_they_end() -> None:
    # Three quarters of four are for one caller.
    async with serving(max_connections=4) as served, greeted(served.port), greeted(served.port):
        async with greeted(served.port), connected(served.port) as refused:
            refused.greet()
            await refused.ended()
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
            assert refused == 20
            served.answers.released.set()
        await until(lambda: served.endpoint.under_way == 0)
        assert await is_answered(served.port)


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


async def test_replies_that_nobody_waits_for_any_more_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with serving() as served:
        for _ in range(20):
            async with greeted(served.port, window=1000) as client:
                for content in (b"large", b"held", b"small"):
                    client.send(client.call(UNARY), message(content), end=True)
                    client.send(client.call(STREAM), message(content))
                await client.until(partial(bool, client.content))
        served.answers.released.set()
        await until(lambda: served.endpoint.under_way == 0)
        assert await is_answered(served.port)
    assert not caplog.records


async def test_it_listens_on_an_address_of_ipv6() -> None:
    settings = load_settings({"host": "::1", "grpc_port": 0})
    try:
        settings.grpc_address.check()
    except StartupError:
        pytest.skip("this machine has no ::1")
    async with (
        serving(host="::1") as served,
        grpc.aio.insecure_channel(f"[::1]:{served.port}") as channel,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        assert await channel.unary_unary(UNARY)(b"hello") == b"hello"
        assert served.answers.callers == {"ipv6:::/64"}
