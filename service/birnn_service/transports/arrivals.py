"""Receives requests, and keeps slow ones from filling the memory before their size is known.

gRPC hands over a message once it is complete, and does not tell its size until then. A call that is not being read
takes almost no memory, because HTTP/2 flow control stops its sender. So only calls that are being read need watching.
At most `MOST_FRESH` of them start at a time, so that the event loop does not copy many large messages in one iteration.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from birnn_service.errors import InvalidRequestError, OverloadedError, Reason, ServiceError
from birnn_service.memory import resident_memory
from birnn_service.memory_budget import RETRY_SECONDS

# Seconds between two checks of the calls that are being read. A call is slow after `SLOW_LOOKS` checks; most are done
# before the first.
LOOK_SECONDS = 0.05
SLOW_LOOKS = 3
# Most calls that are being read and have not been checked yet; further ones wait, and callers take turns. Small
# requests take less than a millisecond, and a slow one counts only until the next check. So however many calls a caller
# makes that send nothing, those of another wait for one check at most.
MOST_FRESH = 8
# Share of the memory that this process may take, above which slow requests are refused.
TIGHT = 0.65


@dataclass(slots=True, eq=False)
class _Read:
    """A request that is being read.

    Attributes:
        task: Reads it.
        most_looks: Checks after which it has taken too long; None where it may take any time.
        looks: How often it was checked.
        refusal: Why it is refused.
    """

    task: "asyncio.Task[Any]"
    most_looks: int | None
    looks: int = 0
    refusal: ServiceError | None = None


class Arrivals:
    """Reads requests. Refuses those that take too long, and slow ones while memory is short."""

    def __init__(self, memory: int, seconds: float, resident: Callable[[], int] = resident_memory) -> None:
        """Start with no calls.

        Args:
            memory: Bytes that this process may take.
            seconds: How long a request may take to arrive.
            resident: Returns the bytes that it takes now.
        """
        self._memory = memory
        self._most_looks = max(1, round(seconds / LOOK_SECONDS))
        self._seconds = seconds
        self._resident = resident
        # Calls that are being read, the oldest first.
        self._reads: dict[grpc.aio.ServicerContext, _Read] = {}
        self._fresh = 0
        # Calls that wait to start, by caller; the first caller is next.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: grpc.aio.ServicerContext, caller: str) -> bytes:
        """Receive the request of a call, not yet parsed.

        Raises:
            InvalidRequestError: There is none, or it does not arrive in time.
            OverloadedError: It is slow, and memory is short.
        """
        if self._fresh < MOST_FRESH:
            self._fresh += 1
        else:
            await self._wait(caller)
        read = self._begin(context, self._most_looks)
        try:
            message = await self._receive(context, read)
        finally:
            if read.looks == 0:
                self._leave()
        if message is None:
            raise InvalidRequestError("the call holds no request message")
        return message

    async def next(self, context: grpc.aio.ServicerContext) -> bytes | None:
        """Receive the next request of a stream, however long that takes; None once there are no more.

        Raises:
            OverloadedError: None came for some time, and memory is short. Part of one may take it.
        """
        # A stream is one call, and its requests come one by one: they need no turns.
        return await self._receive(context, self._begin(context, None, looks=1))

    def _begin(self, context: grpc.aio.ServicerContext, most_looks: int | None, looks: int = 0) -> _Read:
        task = asyncio.current_task()
        assert task is not None
        read = self._reads[context] = _Read(task, most_looks, looks)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        return read

    async def _receive(self, context: grpc.aio.ServicerContext, read: _Read) -> bytes | None:
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if read.refusal is None:
                raise
            read.task.uncancel()
            raise read.refusal from None
        finally:
            self._reads.pop(context, None)
        if message is grpc.aio.EOF:
            return None
        assert isinstance(message, bytes)
        return message

    async def _wait(self, caller: str) -> None:
        """Wait until a fresh call makes room."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Let a call of the next waiting caller start."""
        while self._waiting:
            caller, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[caller] = places
            if not place.done():
                place.set_result(None)
                return
        self._fresh -= 1

    def _look(self) -> None:
        self._timer = None
        if not self._reads:
            return
        tight = self._resident() > TIGHT * self._memory
        for context, read in list(self._reads.items()):
            if read.looks == 0:
                self._leave()
            if read.most_looks is not None and read.looks >= read.most_looks:
                read.refusal = InvalidRequestError(f"the request did not arrive within {self._seconds:g} s")
            elif tight and read.looks >= SLOW_LOOKS:
                read.refusal = OverloadedError(
                    f"this server takes more than {TIGHT:.0%} of the {self._memory >> 20} MiB that it may "
                    "(--memory-mib) and the request is still arriving; retry later, or send less in a call",
                    RETRY_SECONDS,
                    Reason.MEMORY,
                )
            read.looks += 1
            if read.refusal is not None:
                del self._reads[context]
                read.task.cancel()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
