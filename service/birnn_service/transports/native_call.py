"""A call that came over the native front end."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from birnn_native.front import INLINE_BYTES, Order
from birnn_service.errors import InvalidRequestError, TooLargeError
from birnn_service.transports.http_body import unpack
from birnn_service.transports.http_message import HttpRequestError

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
# Bytes of replies of a stream that may be on their way before the next one waits.
AHEAD_BYTES = INLINE_BYTES


class Carrier(Protocol):
    """What carries out a call's orders: a server."""

    request_seconds: float
    most_bytes: int

    def unpacking(self, caller: str) -> asyncio.Lock:
        """Held while a large message of a caller is unpacked."""

    def order(self, id_: int, order: int, status: int = 0, message: bytes = b"", trailers: bytes = b"") -> None:
        """See `birnn_native.front.command_of`."""


class Bell:
    """Wakes the one task that waits for something of a call."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def rung(self) -> None:
        """Wait until it rings next."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def ring(self) -> None:
        """Wake who waits, if anybody does."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class NativeCall:
    """An `Incoming` call or a `Stream` of the native front end."""

    __slots__ = (
        "_announced",
        "_arrival",
        "_carrier",
        "_closed",
        "_departure",
        "_ended",
        "_half_closed",
        "_held",
        "_id",
        "_messages",
        "_metadata",
        "_under_way",
        "caller",
        "deadline",
        "request_id",
        "task",
    )

    path = ""

    def __init__(self, carrier: Carrier, id_: int, caller: str, timeout: float, metadata: bytes) -> None:
        self._carrier = carrier
        self._id = id_
        self._metadata = metadata
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._announced = 0
        self._half_closed = False
        self._arrival = Bell()
        self._departure = Bell()
        # Replies that are sent from where they are, and bytes of replies of a stream that were not taken yet.
        self._held: list[bytes] = []
        self._under_way = 0
        self._ended: list[Callable[[], None]] = []
        self._closed = False
        self.caller = caller
        self.deadline = None if timeout < 0 else time.monotonic() + timeout
        # Most calls have none, which is seen at a glance; others may only mention it elsewhere.
        self.request_id = next(iter(self._values(REQUEST_ID)), "") if b"x-request-id" in metadata else ""
        self.task: asyncio.Task[Any] | None = None

    # Of calls; see `birnn_service.call`.

    @property
    def certificate_name(self) -> str:
        """Empty: there is no TLS."""
        return ""

    @property
    def traceparent(self) -> str:
        """The header `traceparent`, as it came; empty for none."""
        return next(iter(self._values(TRACEPARENT)), "") if b"traceparent" in self._metadata else ""

    def header(self, name: str) -> str:
        """Metadata by its name; joined by commas where it came more than once. Binary values are as they came."""
        return ", ".join(self._values(name))

    async def read(self, grow: Callable[[int], None]) -> bytes:
        """Receive the request. What is longer than a first window comes only once `grow` has room for it.

        Raises:
            InvalidRequestError: There is none, it does not arrive in time, or cannot be unpacked.
            TooLargeError: It unpacks to more than a message may hold.
        """
        if self._messages:
            return await self._unpacked(*self._messages.popleft(), grow)
        async with self._in_time():
            arrived = await self._receive(grow)
        if arrived is None:
            raise InvalidRequestError("the call holds no request message")
        return await self._unpacked(*arrived, grow)

    async def next(self, grow: Callable[[int], None]) -> bytes | None:
        """Receive the next request of a stream, however long that takes; None once there are no more.

        Raises:
            InvalidRequestError: It begins and does not arrive in time.
            OverloadedError: There is no memory for it.
        """
        arrived = await self._receive(grow)
        if arrived is None:
            return None
        self._carrier.order(self._id, Order.TOOK)
        return await self._unpacked(*arrived, grow)

    async def write(self, reply: bytes) -> None:
        """Send a reply of a stream."""
        self._hold(reply)
        self._under_way += len(reply)
        self._carrier.order(self._id, Order.SEND, message=reply)
        while self._under_way > AHEAD_BYTES:
            await self._departure.rung()

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called once the reply has been sent, or the caller has gone."""
        if self._closed:
            ended()
        else:
            self._ended.append(ended)

    # Of the server.

    def reply(self, reply: bytes) -> None:
        """End a call of one request with its reply."""
        self._hold(reply)
        self._carrier.order(self._id, Order.REPLY, message=reply, trailers=self._trailers())

    def end(self, status: int = 0, trailers: bytes = b"") -> None:
        """End a call."""
        self._carrier.order(self._id, Order.END, status, trailers=self._trailers() + trailers)

    def arrived(self, message: bytes, *, packed: bool) -> None:
        """A message is there; if packed, as gzip."""
        self._messages.append((message, packed))
        self._arrival.ring()

    def announced(self, length: int) -> None:
        """A message of `length` bytes begins; the rest of it comes once it is admitted."""
        self._announced = length
        self._arrival.ring()

    def half_closed(self) -> None:
        """There are no more messages."""
        self._half_closed = True
        self._arrival.ring()

    def taken(self, size: int) -> None:
        """Bytes of replies have been taken."""
        self._under_way -= size
        if not self._under_way:
            self._held.clear()
        self._departure.ring()

    def close(self) -> None:
        """The call is over; what still works for it is stopped."""
        self._closed = True
        for ended in self._ended:
            ended()
        self._held.clear()
        if self.task is not None and not self.task.done():
            self.task.cancel()

    async def _receive(self, grow: Callable[[int], None]) -> tuple[bytes, bool] | None:
        while not self._messages:
            if self._announced:
                grow(self._announced)
                self._announced = 0
                self._carrier.order(self._id, Order.ADMIT)
                async with self._in_time():
                    await self._arrival.rung()
            elif self._half_closed:
                return None
            else:
                await self._arrival.rung()
        return self._messages.popleft()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self._carrier.request_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise InvalidRequestError(f"the request did not arrive within {seconds:g} s") from None

    async def _unpacked(self, message: bytes, packed: bool, grow: Callable[[int], None]) -> bytes:
        if not packed or not message:  # some clients say of a message without content that it is compressed
            return message
        try:
            unpacked = await unpack(message, self._carrier.most_bytes, self._carrier.unpacking(self.caller))
        except HttpRequestError as error:
            raise (TooLargeError if error.status == 413 else InvalidRequestError)(str(error)) from error
        grow(len(unpacked))
        return unpacked

    def _hold(self, reply: bytes) -> None:
        if len(reply) > INLINE_BYTES:
            self._held.append(reply)

    def _trailers(self) -> bytes:
        return f"{REQUEST_ID}\0{self.request_id}\0".encode("latin-1") if self.request_id else b""

    def _values(self, name: str) -> list[str]:
        fields = self._metadata.split(b"\0")
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in zip(fields[::2], fields[1::2], strict=False) if key == wanted]
