import asyncio
from dataclasses import replace

import pytest

from tests.service.transports.clock import PATIENCE_SECONDS, forward
from tests.service.transports.http_exchange import LIMITS, body_of, exchange, post, serving, status, trickle


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", b"POST", b"POST / HTTP/1.1\r\nHost: x", b"POST / HTTP/1.1\r\nA: b\r\n"]
)
async def test_heads_have_a_deadline(start: bytes) -> None:
    async with serving(limits=replace(LIMITS, head_seconds=0.5)) as (_, port):
        assert status(await exchange(port, start)) in (0, 408)
        # One byte every now and then makes no difference.
        assert status(await trickle(port, start, b"\r\n" if start == b"\r\n" else b"x")) in (0, 400, 408)


@pytest.mark.parametrize(("start", "told"), [(b"POST / HTTP", b"HTTP/1.1 408 "), (b"\r\n", b"")])
async def test_the_head_of_a_later_request_has_a_deadline_too(start: bytes, told: bytes) -> None:
    async with serving(limits=replace(LIMITS, idle_seconds=10**9)) as (_, port), asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"a", close=False))
        await reader.readuntil(b"POST / a")
        writer.write(start)
        # Until the start has arrived, the connection is idle and may be for decades.
        rest = asyncio.create_task(reader.read())
        while not rest.done():
            forward(2 * LIMITS.head_seconds)
            await asyncio.sleep(0.05)
        assert (await rest).startswith(told)
        assert bool(await rest) == bool(told)
        writer.close()


async def test_heads_have_a_size() -> None:
    async with serving() as (_, port):
        assert status(await exchange(port, post(b"", b"A: " + b"x" * 8192))) == 431
        assert status(await exchange(port, post(b"", *[b"A: b"] * 10_000))) == 431
        assert status(await exchange(port, post(b"", path=b"/" + b"x" * 8192))) == 431
        endless = [b"POST / HTTP/1.1\r\nA: ", *[b"x" * 1000] * 10]
        assert status(await exchange(port, *endless)) == 431
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n"
        assert status(await exchange(port, chunked + b"A: b\r\n" * 100 + b"\r\n")) == 431


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\nContent-Length: 3\n\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdefghi",
        b"POST /\xff HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"FROB / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_what_is_no_request_of_ours_ends_the_connection(head: bytes) -> None:
    async with serving() as (_, port):
        reply = await exchange(port, head, post(b"smuggled"))
    assert b"smuggled" not in reply
    assert reply.count(b"HTTP/1.1") == 1
    assert status(reply) in (200, 400, 405, 501)
    assert (status(reply) == 200) == head.endswith(b"abcdefghi")


async def test_other_transfer_encodings_are_refused() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert status(reply) == 501


async def test_an_offer_of_http_2_is_declined() -> None:
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    request = post(b"abc", *offer, close=False)
    async with serving() as (_, port):
        assert b"POST / abc" in await exchange(port, request + post(b"next"))
        apart = await exchange(port, request[:-3], request[-3:], post(b"next"))
        assert apart.count(b"HTTP/1.1 200") == 2
        assert apart.endswith(b"POST / next")
        byte_by_byte = await exchange(port, *[bytes([byte]) for byte in request], post(b"next"))
        assert byte_by_byte.count(b"HTTP/1.1 200") == 2
        get = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert b"GET /v2 " in await exchange(port, get, post(b"next"))


@pytest.mark.parametrize("target", [b"http://host/a", b"/%61"])
async def test_forms_of_a_target(target: bytes) -> None:
    async with serving() as (_, port):
        assert body_of(await exchange(port, post(b"", path=target))) == b"POST /a "


@pytest.mark.parametrize("target", [b"//a", b"/../a", b"/%2e%2e/a", b"/%ff", b"/a%00", b"/a;b"])
async def test_odd_targets_are_answered(target: bytes) -> None:
    async with serving() as (_, port):
        assert status(await exchange(port, post(b"", path=target))) == 200


async def test_http_1_0_is_answered_and_closed() -> None:
    async with serving() as (_, port):
        reply = await exchange(port, b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    assert body_of(reply) == b"POST / x"
