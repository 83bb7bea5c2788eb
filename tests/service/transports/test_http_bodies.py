import asyncio
import gzip
import os
import threading
from dataclasses import replace

import pytest

from birnn_service.errors import OverloadedError, Reason
from birnn_service.transports import http_body
from birnn_service.transports.http_message import HttpReply, HttpRequest
from tests.service.transports.http_exchange import (
    HOST,
    LIMITS,
    body_of,
    echo,
    exchange,
    post,
    serving,
    status,
    trickle,
)


async def test_a_chunked_body_arrives_whole() -> None:
    chunked = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, chunked, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\ntrailer: x\r\n\r\n")
    assert body_of(reply) == b"POST / abcde"


async def test_a_large_body_comes_through_and_a_larger_one_does_not() -> None:
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(b"x" * (1 << 20)))) == b"POST / " + b"x" * (1 << 20)
        reply = await exchange(port, post(b"x" * ((1 << 20) + 1)))
    assert status(reply) == 413
    assert b"--max-message-mib" in reply


async def test_endless_chunks_are_refused_once_they_are_too_many_bytes() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, head, *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 20)
    assert status(reply) == 413


async def test_tiny_chunks_are_refused() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving() as (_, port):
        reply = await exchange(port, head + b"1\r\nx\r\n" * 5000)
    assert status(reply) == 400
    assert b"chunks" in reply


async def test_endless_extensions_of_a_chunk_are_refused() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;"
    async with serving() as (_, port):
        reply = await exchange(port, head, *[b"x" * (1 << 18)] * 6)
    assert status(reply) == 400


async def test_a_call_can_be_refused_before_its_body_is_read() -> None:
    async def refuse(request: HttpRequest) -> HttpReply:
        return HttpReply(429, (b"later",), "text/plain")

    async with serving(refuse) as (_, port):
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        reply = await exchange(port, head)
        assert status(reply) == 429
        assert b"100 Continue" not in reply
        # What follows would be taken for the body, so callers are told to send nothing more.
        assert b"\r\nconnection: close\r\n" in reply
        # A caller who sends all the same reads the reply, too.
        assert status(await exchange(port, head, *[b"x" * 10_000] * 20)) == 429


async def test_a_caller_is_asked_to_continue_when_its_body_is_read() -> None:
    async with serving() as (_, port):
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
        reply = await exchange(port, head, b"x")
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


async def test_memory_is_asked_for_while_the_body_arrives() -> None:
    asked: list[int] = []

    async def answer(request: HttpRequest) -> HttpReply:
        def grow(size: int) -> None:
            asked.append(size)
            if sum(asked) > 300_000:
                raise OverloadedError("full", 1.0, Reason.MEMORY)

        try:
            await request.read(grow)
        except OverloadedError:
            return HttpReply(429, ())
        return HttpReply(200, ())

    async with serving(answer) as (_, port):
        assert status(await exchange(port, post(b"x" * 1_000_000))) == 429
    assert sum(asked) < 1_000_000


async def test_large_bodies_of_one_caller_are_unpacked_one_at_a_time_and_others_pass_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, held = asyncio.get_running_loop(), threading.Event()
    begun: asyncio.Queue[bytes] = asyncio.Queue()
    real = http_body._unpack

    def slow(packed: bytes, most: int) -> bytes:
        unpacked = real(packed, most)
        if threading.current_thread() is not threading.main_thread():
            loop.call_soon_threadsafe(begun.put_nowait, unpacked[:1])
            if unpacked.startswith(b"a"):
                held.wait()
        return unpacked

    monkeypatch.setattr(http_body, "_unpack", slow)

    async def answer(request: HttpRequest) -> HttpReply:
        request.caller = request.headers["x-tenant"]
        return await echo(request)

    async with serving(answer, replace(LIMITS, request_seconds=300.0)) as (_, port):

        def asked(tenant: bytes) -> "asyncio.Task[bytes]":
            body = gzip.compress(tenant * (http_body.INLINE_UNPACKED + 1))
            headers = (b"Content-Encoding: gzip", b"X-Tenant: " + tenant)
            return asyncio.create_task(exchange(port, post(body, *headers)))

        storm = [asked(b"a") for _ in range(4)]
        assert await begun.get() == b"a"
        # While the first of them is unpacked, all others wait, and another's passes.
        assert status(await asked(b"b")) == 200
        assert await begun.get() == b"b"
        assert begun.empty()
        held.set()
        assert [status(await one) for one in storm] == 4 * [200]


async def test_gzip_is_unpacked_within_bounds() -> None:
    packed = b"Content-Encoding: gzip"
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(gzip.compress(b"abc"), packed))) == b"POST / abc"
        whole = os.urandom(900_000)
        assert body_of(await exchange(port, post(gzip.compress(whole), packed))) == b"POST / " + whole
        assert status(await exchange(port, post(gzip.compress(bytes(1 << 20)), packed))) == 200
        assert status(await exchange(port, post(gzip.compress(bytes((1 << 20) + 1)), packed))) == 413
        assert status(await exchange(port, post(gzip.compress(bytes(1 << 26)), packed))) == 413
        assert status(await exchange(port, post(gzip.compress(b"abc")[:-1], packed))) == 400
        assert status(await exchange(port, post(gzip.compress(b"abc") + b"x", packed))) == 400
        assert status(await exchange(port, post(b"abc", packed))) == 400
        assert status(await exchange(port, post(b"abc", b"Content-Encoding: br"))) == 415


async def test_bodies_have_a_deadline() -> None:
    async with serving(limits=replace(LIMITS, request_seconds=0.5)) as (_, port):
        # One byte every now and then makes no difference.
        reply = await trickle(port, b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", b"x")
    assert status(reply) == 408
