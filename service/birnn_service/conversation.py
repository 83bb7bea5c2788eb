"""One stream of requests: many of them under way at a time, each answered by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sized
from typing import Any, Protocol

from birnn_service.call import Exchange, Incoming, Method, Stream
from birnn_service.errors import CancelledRequestError, InvalidRequestError, ServiceError


class Answers(Protocol):
    """What answers the requests: an endpoint."""

    def __call__(self, method: Method, incoming: Incoming) -> Awaitable[bytes]:
        """See `birnn_service.endpoint.Endpoint.answer`."""


class _Parsed:
    """A request, and the size of its message."""

    __slots__ = ("request", "size")

    def __init__(self, request: Any, size: int) -> None:
        self.request = request
        self.size = size

    def __len__(self) -> int:
        return self.size


class _Turn:
    """A request of a stream, as a call of its own."""

    __slots__ = ("_came", "_ended", "caller", "deadline", "header", "id", "request_id", "task")

    def __init__(self, stream: Stream, number: Any, came: "_Parsed | ServiceError") -> None:
        self._came: _Parsed | ServiceError | None = came
        self._ended: list[Callable[[], None]] = []
        self.caller = stream.caller
        self.deadline = stream.deadline
        self.request_id = stream.request_id
        self.header = stream.header
        self.id = number
        self.task: asyncio.Task[bytes]

    async def read(self, grow: Callable[[int], None]) -> Sized:
        # Handed over, so that its memory is free as soon as the endpoint needs it no more.
        came, self._came = self._came, None
        assert came is not None
        if isinstance(came, ServiceError):
            raise came
        return came

    def at_end(self, ended: Callable[[], None]) -> None:
        self._ended.append(ended)

    def end(self) -> None:
        """Its reply has been sent, or nobody waits for it any more."""
        for ended in self._ended:
            ended()
        self._ended.clear()


def parsed(came: _Parsed) -> Any:
    """The `parse` of a method that answers requests of streams."""
    return came.request


class Conversation:
    """Reads requests while there is room, has them answered, and sends the replies.

    A request takes up room until its reply has been sent. So a caller that reads no replies is not read from either.
    """

    def __init__(self, exchange: Exchange, stream: Stream, answer: Answers, window: int) -> None:
        """Prepare a conversation.

        Args:
            exchange: The method.
            stream: The call.
            answer: Answers its requests.
            window: Most requests under way.
        """
        self._exchange = exchange
        self._stream = stream
        self._answer = answer
        self._room = asyncio.Semaphore(window)
        self._turns: set[_Turn] = set()
        self._by_id: dict[Any, _Turn] = {}
        # In the order of their replies; None ends them.
        self._outgoing: asyncio.Queue[_Turn | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Converse until all requests have been answered and there are no more, or until told to stop.

        Raises:
            ServiceError: A request cannot be taken; those before it have been answered.
        """
        self._reader = asyncio.ensure_future(self._read())
        writer = asyncio.ensure_future(self._write())
        try:
            await asyncio.wait((self._reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if not writer.done():
                await asyncio.gather(*(turn.task for turn in self._turns), return_exceptions=True)
                self._outgoing.put_nowait(None)
            await writer
            if not self._reader.cancelled():
                await self._reader
        finally:
            for task in (self._reader, writer, *(turn.task for turn in self._turns)):
                task.cancel()
            for turn in self._turns:
                turn.end()

    def stop(self) -> None:
        """Read no further requests."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        while (message := await self._stream.next()) is not None:
            number, came = self._parse(message)
            if isinstance(came, _Parsed) and came.request is None:
                if found := self._by_id.get(number):
                    found.task.cancel()
                continue
            await self._room.acquire()
            self._begin(_Turn(self._stream, number, came))

    def _parse(self, message: bytes) -> tuple[Any, "_Parsed | ServiceError"]:
        try:
            number, request = self._exchange.parse(message)
        except InvalidRequestError as error:
            return None, error
        if not self._exchange.ordered and request is not None and number in self._by_id:
            return number, InvalidRequestError(f"a request of id {number} is under way on this stream; use another id")
        return number, _Parsed(request, len(message))

    def _begin(self, turn: _Turn) -> None:
        turn.task = asyncio.ensure_future(self._reply(turn))
        self._turns.add(turn)
        if self._exchange.ordered:
            self._outgoing.put_nowait(turn)
            return
        if turn.id is not None:
            self._by_id.setdefault(turn.id, turn)
        turn.task.add_done_callback(lambda _: self._outgoing.put_nowait(turn))

    async def _reply(self, turn: _Turn) -> bytes:
        try:
            return self._exchange.replied(turn.id, await self._answer(self._exchange.method, turn))
        except ServiceError as error:
            return self._exchange.failed(turn.id, error)
        finally:
            if self._by_id.get(turn.id) is turn:
                del self._by_id[turn.id]

    async def _write(self) -> None:
        while (turn := await self._outgoing.get()) is not None:
            try:
                reply = await turn.task
            except asyncio.CancelledError:
                if not turn.task.cancelled():
                    raise
                reply = self._exchange.failed(turn.id, CancelledRequestError("the caller has cancelled the request"))
            await self._stream.write(reply)
            self._turns.discard(turn)
            turn.end()
            self._room.release()
