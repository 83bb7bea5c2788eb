"""Calls over the native front end, sent by a client that sends what no library would."""

import gzip
import logging
import struct
from functools import partial

import grpc
import pytest

from tests.service.transports.http_exchange import until
from tests.service.transports.native_serving import CANCEL, MIB, STREAM, UNARY, greeted, is_answered, serving
from tests.service.transports.raw_http2 import message


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
        assert await status("gzip", b"no gzip") == (3, "the request is said to be gzip and is not")
        assert await status("gzip", b"") == (0, "")
        assert (await status("snappy", b""))[0] == 12
        assert (await status("identity", b""))[0] == 13
        assert served.answers.seen == [MIB, 0]


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
