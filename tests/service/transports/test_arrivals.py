"""Requests begin to be read a few at a time, and callers take turns."""

import asyncio
from typing import Any

import grpc
import pytest

from birnn_service.errors import InvalidRequestError
from birnn_service.transports.arrivals import MOST_FRESH, Arrivals


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
