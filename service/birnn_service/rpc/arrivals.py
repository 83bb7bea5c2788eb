"""Requests that are being received: how slow ones are kept from filling the memory before anybody can count them.

gRPC gives a message away when all of it has come, and says nothing of its size until then. Calls that are not read yet
take next to nothing (HTTP/2 lets their senders wait), so what has to be watched are those that are being read. Only so
many begin to be read at a time, so that large ones that come together are not all copied in one iteration of the loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import grpc

from birnn_service.errors import InvalidRequestError, OverloadedError, ServiceError
from birnn_service.memory import resident_memory
from birnn_service.memory_budget import RETRY_SECONDS
from birnn_service.rpc.status import fail

logger = logging.getLogger(__name__)

# How often the calls that are being read are looked at, and how often one must be seen to be slow. Most are never seen.
LOOK_SECONDS = 0.05
SLOW_LOOKS = 3
# Calls that have begun to be read and have not been seen yet; the next ones wait. Small requests pass through in less
# than a millisecond, and slow ones do not count for longer than a look, so that nobody can keep others waiting.
MOST_FRESH = 8
# Of the memory that this process may take: beyond it, slow requests are refused.
TIGHT = 0.65


class Arrivals:
    """Reads requests, and refuses those that are still on their way when memory is short, or for too long."""

    def __init__(self, memory: int, seconds: float, resident: Callable[[], int] = resident_memory) -> None:
        """Watch.

        Args:
            memory: Bytes that this process may take.
            seconds: How long a request may take to arrive.
            resident: Tells how many it takes.
        """
        self._memory = memory
        self._most_looks = max(1, round(seconds / LOOK_SECONDS))
        self._seconds = seconds
        self._resident = resident
        # How often each call has been seen, the oldest first.
        self._looks: dict[grpc.aio.ServicerContext, int] = {}
        self._fresh = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refusals: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: grpc.aio.ServicerContext) -> bytes:
        """The request of a call, as it came.

        Raises:
            InvalidRequestError: There is none.
        """
        await self._enter()
        self._looks[context] = 0
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        try:
            message = await context.read()
        finally:
            if self._looks.pop(context, None) == 0:
                self._leave()
        if message is grpc.aio.EOF:
            raise InvalidRequestError("the call holds no request message")
        assert isinstance(message, bytes)
        return message

    async def _enter(self) -> None:
        """Wait for a place among the fresh ones."""
        if self._fresh < MOST_FRESH:
            self._fresh += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        """Give a place among the fresh ones to the next that waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._fresh -= 1

    def _look(self) -> None:
        self._timer = None
        if not self._looks:
            return
        tight = self._resident() > TIGHT * self._memory
        for context, looks in list(self._looks.items()):
            self._looks[context] = looks + 1
            if looks == 0:
                self._leave()
            if looks >= self._most_looks:
                self._refuse(context, InvalidRequestError(f"the request did not arrive within {self._seconds:g} s"))
            elif tight and looks >= SLOW_LOOKS:
                self._refuse(
                    context,
                    OverloadedError(
                        f"this server takes more than {TIGHT:.0%} of the {self._memory >> 20} MiB that it may "
                        "(--memory-mib) and the request is still arriving; retry later, or send less in a call",
                        RETRY_SECONDS,
                    ),
                )
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _refuse(self, context: grpc.aio.ServicerContext, error: ServiceError) -> None:
        """End a call; whoever waits for its request then gets gRPC's own AbortError."""
        del self._looks[context]
        task = asyncio.get_running_loop().create_task(_end(context, error))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)


async def _end(context: grpc.aio.ServicerContext, error: ServiceError) -> None:
    try:
        await fail(context, error)
    except grpc.aio.BaseError:  # aborted, as was to be; or the call has ended by itself
        logger.debug("refused a request that was still arriving: %s", error)
