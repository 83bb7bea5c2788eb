"""One stream of requests: many of them under way at a time, each answered by itself."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from birnn_service.call import Exchange, Incoming, Method, Stream
from birnn_service.errors import CancelledRequestError, InvalidRequestError, ServiceError
from birnn_service.memory_budget import MemoryBudget

# Memory of a request that waits for room, for each of its bytes: as it came, and as it was read.
WAITING_COST = 2


class Answers(Protocol):
    """What answers the requests: an endpoint."""

    def __call__(self, method: Method, incoming: Incoming) -> Awaitable[bytes]:
        """See `birnn_service.endpoint.Endpoint.answer`."""


class _Turn:
    """A request of a stream, as a call of its own."""

    __slots__ = (
        "_ended",
        "_stream",
        "caller",
        "deadline",
        "error",
        "header",
        "id",
        "request",
        "request_id",
        "size",
        "task",
        "traceparent",
    )

    path = ""

    def __init__(self, stream: Stream, deadline: float | None, size: int) -> None:
        self._stream = stream
        self.caller = stream.caller
        self.header = stream.header
        self.deadline = deadline
        self.request_id = stream.request_id
        self.traceparent = stream.traceparent
        self.size = size
        self.id: Any = None
        self.request: Any = None
        self.error: ServiceError | None = None
        self.task: asyncio.Task[bytes]
        self._ended: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return self.size

    @property
    def certificate_name(self) -> str:
        return self._stream.certificate_name

    async def read(self, grow: Callable[[int], None]) -> "_Turn":
        if self.error is not None:
            raise self.error
        return self

    def fail(self, error: ServiceError) -> None:
        """Answer it with an error."""
        self.request, self.error = None, error

    def at_end(self, ended: Callable[[], None]) -> None:
        self._ended.append(ended)

    def end(self) -> None:
        """Its reply has been sent, or its caller no longer waits for it."""
        for ended in self._ended:
            ended()
        self._ended.clear()


def parsed(turn: _Turn) -> Any:
    """The `parse` of a method that answers requests of streams."""
    # Handed over, so that its memory is free as soon as the method needs it no more.
    request, turn.request = turn.request, None
    return request


class Conversation:
    """Reads requests while there is room, has them answered, and sends the replies.

    A request takes up room until its reply has been sent. So a caller that reads no replies is not read from either.
    """

    def __init__(self, exchange: Exchange, stream: Stream, answer: Answers, window: int, budget: MemoryBudget) -> None:
        """Prepare a conversation.

        Args:
            exchange: The method.
            stream: The call.
            answer: Answers its requests.
            window: Most requests under way.
            budget: Memory for the request that waits for room.
        """
        self._exchange = exchange
        self._stream = stream
        self._answer = answer
        self._budget = budget
        self._room = asyncio.Semaphore(window)
        self._turns: set[_Turn] = set()
        self._by_id: dict[Any, _Turn] = {}
        # Those whose replies come in the order of their requests.
        self._line: deque[_Turn] = deque()
        # Those that have been answered, in the order of their replies; None ends them.
        self._outgoing: asyncio.Queue[_Turn | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> bool:
        """Converse until all requests have been answered and there are no more, or until told to stop.

        Returns:
            Whether all requests were read.

        Raises:
            ServiceError: A request cannot be taken; those before it have been answered.
        """
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read())
        writer = loop.create_task(self._write())
        try:
            await asyncio.wait((self._reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if not writer.done():
                await asyncio.gather(*(turn.task for turn in self._turns), return_exceptions=True)
                self._outgoing.put_nowait(None)
            await writer
            if self._reader.cancelled():
                return False
            await self._reader
            return True
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
        loop, deadline = asyncio.get_running_loop(), self._stream.deadline
        while (turn := await self._next(deadline)) is not None:
            if turn.request is None and turn.error is None:
                if found := self._by_id.get(turn.id):
                    found.task.cancel()
                continue
            if self._room.locked():
                await self._wait(turn)
            else:
                await self._room.acquire()
            turn.task = loop.create_task(self._reply(turn))
            turn.task.add_done_callback(partial(self._answered, turn))
            self._turns.add(turn)
            if self._exchange.ordered:
                self._line.append(turn)
            elif turn.id is not None:
                self._by_id.setdefault(turn.id, turn)

    async def _next(self, deadline: float | None) -> _Turn | None:
        """The next message; one that neither holds a request nor an error cancels the request of its id."""
        # While it arrives. Once it is there, the call that it becomes takes memory for it.
        memory = self._budget.open(self._stream.caller)
        try:
            message = await self._stream.next(memory.take)
        finally:
            memory.close()
        if message is None:
            return None
        turn = _Turn(self._stream, deadline, len(message))
        try:
            turn.id, turn.request = self._exchange.parse(message)
        except InvalidRequestError as error:
            turn.error = error
            return turn
        if not self._exchange.ordered and turn.request is not None and turn.id in self._by_id:
            turn.fail(InvalidRequestError(f"a request of id {turn.id} is under way on this stream; use another id"))
        return turn

    async def _wait(self, turn: _Turn) -> None:
        """Wait for room. Memory is counted: all streams of a caller that takes no replies may hold a request here."""
        memory = self._budget.open(turn.caller)
        try:
            memory.take(WAITING_COST * turn.size)
        except ServiceError as error:
            turn.fail(error)
        try:
            await self._room.acquire()
        finally:
            memory.close()

    async def _reply(self, turn: _Turn) -> bytes:
        try:
            return await self._answer(self._exchange.method, turn)
        except ServiceError as error:
            return self._exchange.failed(turn.id, error)

    def _answered(self, turn: _Turn, _: "asyncio.Task[bytes]") -> None:
        turn.request = None
        if self._exchange.ordered:
            while self._line and self._line[0].task.done():
                self._outgoing.put_nowait(self._line.popleft())
            return
        if self._by_id.get(turn.id) is turn:
            del self._by_id[turn.id]
        self._outgoing.put_nowait(turn)

    async def _write(self) -> None:
        while (turn := await self._outgoing.get()) is not None:
            if turn.task.cancelled():
                reply = self._exchange.failed(turn.id, CancelledRequestError("the caller has cancelled the request"))
            else:
                reply = turn.task.result()
            await self._stream.write(reply)
            self._turns.discard(turn)
            turn.end()
            self._room.release()
