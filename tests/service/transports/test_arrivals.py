"""Requests begin to be read a few at a time, and callers take turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from birnn_service.errors import InvalidRequestError, ServiceError
from birnn_service.transports.arrivals import MOST_FRESH, Arrivals
from birnn_service.transports.grpc_status import fail
from tests.service.transports.clock import PATIENCE_SECONDS

GIB = 1 << 30


class Incoming:
    """A call whose request comes when it is told to."""

    def __init__(self, name: str, log: list[str], comes: asyncio.Event) -> None:
        self.name, self._log, self._comes = name, log, comes

    async def read(self) -> bytes:
        self._log.append(self.name)
        await self._comes.wait()
        return self.name.encode()


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> Arrivals:
    # Without checks, which would count slow calls as no longer fresh.
    monkeypatch.setattr("birnn_service.transports.arrivals.LOOK_SECONDS", 3600.0)
    return Arrivals(1 << 30, 3600.0, resident=lambda: 0)


def begin(arrivals: Arrivals, caller: str, call: Any) -> "asyncio.Task[bytes]":
    return asyncio.create_task(arrivals.read(call, caller))


async def test_callers_take_turns_however_many_calls_each_makes(arrivals: Arrivals) -> None:
    log: list[str] = []
    comes = asyncio.Event()
    many = [begin(arrivals, "many", Incoming(f"many {number}", log, comes)) for number in range(4 * MOST_FRESH)]
    await asyncio.sleep(0)
    assert len(log) == MOST_FRESH
    one = begin(arrivals, "one", Incoming("one", log, comes))
    await asyncio.sleep(0)
    comes.set()
    assert await one == b"one"
    await asyncio.gather(*many)
    # One of the many was next already.
    assert log.index("one") <= MOST_FRESH + 1
    assert len(log) == len(set(log)) == 4 * MOST_FRESH + 1


async def test_a_cancelled_call_gives_its_place_to_the_next(arrivals: Arrivals) -> None:
    log: list[str] = []
    comes = asyncio.Event()
    first = [begin(arrivals, "many", Incoming(f"first {number}", log, comes)) for number in range(MOST_FRESH)]
    await asyncio.sleep(0)
    gone, stays = (begin(arrivals, "many", Incoming(name, log, comes)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    first[0].cancel()
    await asyncio.wait([gone, first[0]])
    comes.set()
    assert await stays == b"stays"
    assert "gone" not in log
    await asyncio.gather(*first[1:])


async def test_a_call_without_a_request_is_invalid(arrivals: Arrivals) -> None:
    class Empty:
        async def read(self) -> object:
            return grpc.aio.EOF

    with pytest.raises(InvalidRequestError, match="holds no request message"):
        await begin(arrivals, "one", Empty())


@asynccontextmanager
async def reading(arrivals: Arrivals) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that sends back what `arrivals` reads."""
    server = grpc.aio.server()

    async def read(_: object, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await arrivals.read(context, "caller")
        except ServiceError as error:
            await fail(context, error)

    server.add_registered_method_handlers("test", {"Read": grpc.stream_unary_rpc_method_handler(read)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def open_and_send_nothing(arrivals: Arrivals) -> grpc.aio.AioRpcError:
    """What becomes of a call whose request never comes, before and after one whose request is there at once."""
    comes = asyncio.Event()
    comes.set()
    whole: Any = Incoming("whole", [], comes)
    async with reading(arrivals) as channel, asyncio.timeout(PATIENCE_SECONDS):
        assert await arrivals.read(whole, "caller") == b"whole"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary("/test/Read")()
        assert await arrivals.read(whole, "caller") == b"whole"
        return caught.value


def test_requests_that_do_not_come_keep_no_others_waiting() -> None:
    async def run() -> list[bytes]:
        async with reading(Arrivals(GIB, 600, lambda: 0)) as channel, asyncio.timeout(PATIENCE_SECONDS):
            silent = [channel.stream_unary("/test/Read")() for _ in range(3 * MOST_FRESH)]
            calls = [channel.unary_unary("/test/Read")(b"%d" % number) for number in range(3 * MOST_FRESH)]
            replies = await asyncio.gather(*calls)
            assert not any(call.done() for call in silent)
            # Callers who give up while they wait leave their places to others.
            for call in silent:
                call.cancel()
            assert await channel.unary_unary("/test/Read")(b"last") == b"last"
            return list(replies)

    assert asyncio.run(run()) == [b"%d" % number for number in range(3 * MOST_FRESH)]


def test_a_request_that_is_slow_to_arrive_is_refused_where_memory_is_short() -> None:
    error = asyncio.run(open_and_send_nothing(Arrivals(GIB, 600, lambda: GIB)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than 65% of the 1024 MiB that it may (--memory-mib)" in (error.details() or "")
    assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())


def test_a_request_that_does_not_arrive_in_time_is_refused() -> None:
    error = asyncio.run(open_and_send_nothing(Arrivals(GIB, 0.2, lambda: 0)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "did not arrive within 0.2 s" in (error.details() or "")
