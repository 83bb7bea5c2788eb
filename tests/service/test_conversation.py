import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from birnn_service.call import Exchange, Incoming, Method
from birnn_service.conversation import Conversation, parsed
from birnn_service.errors import Code, InvalidRequestError, OverloadedError, Reason, ServiceError
from birnn_service.memory_budget import MemoryBudget


class Request:
    """A request that can be told from others, and whose end can be seen."""


class FakeStream:
    """Gives the messages put into it, and keeps the replies; None ends it."""

    caller = "ipv4:192.0.2.1"
    deadline = None
    request_id = ""
    certificate_name = ""
    traceparent = path = ""

    def __init__(self, *messages: bytes | None) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.send(*messages)
        self.replies: list[bytes] = []
        self.replied = asyncio.Event()
        self.slow = asyncio.Event()
        self.slow.set()

    def send(self, *messages: bytes | None) -> None:
        for message in messages:
            self.messages.put_nowait(message)

    async def next(self, grow: Callable[[int], None]) -> bytes | None:
        return await self.messages.get()

    async def write(self, reply: bytes) -> None:
        self.replies.append(reply)
        self.replied.set()
        await self.slow.wait()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.replies) < count:
                self.replied.clear()
                await self.replied.wait()

    def header(self, name: str) -> str:
        return ""

    def at_end(self, ended: Callable[[], None]) -> None:
        raise AssertionError("requests end, the stream is somebody else's")


class Answers:
    """Answers requests once it is told to; those of other numbers at once."""

    def __init__(self, *held: int) -> None:
        self.gates = {number: asyncio.Event() for number in held}
        self.seen: list[weakref.ref[Request]] = []
        self.refuses = False

    async def __call__(self, method: Method, incoming: Incoming) -> bytes:
        if self.refuses:
            raise OverloadedError("too many calls", 1.0, Reason.CALLS)
        turn: Any = await incoming.read(lambda size: None)
        request = method.parse(turn)
        self.seen.append(weakref.ref(request))
        del request
        if gate := self.gates.get(turn.id):
            await gate.wait()
        return b"%d done" % turn.id


def parse(message: bytes) -> tuple[int, Request | None]:
    """`7` is a request, `-7` cancels it."""
    try:
        number = int(message.split()[0])
    except ValueError as error:
        raise InvalidRequestError("no number") from error
    return abs(number), Request() if number > 0 else None


async def never(request: Any, call: Any) -> bytes:
    raise AssertionError("answers are faked")


async def settle() -> None:
    """Let everything go as far as it can: nothing here waits for a time."""
    for _ in range(100):
        await asyncio.sleep(0)


def failed(number: int | None, error: ServiceError) -> bytes:
    return f"{number} {error.code.name}".encode()


def conversation(
    stream: FakeStream, answers: Answers, *, ordered: bool = False, window: int = 8, memory: int = 1 << 20
) -> tuple[Conversation, MemoryBudget]:
    exchange = Exchange("Test", parse, Method("Test", parsed, never), failed, ordered)
    budget = MemoryBudget(memory)
    return Conversation(exchange, stream, answers, window, budget), budget


@pytest.mark.parametrize(("ordered", "expected"), [(False, [b"2 done", b"3 done", b"1 done"]), (True, None)])
async def test_replies_come_as_they_are_ready_or_in_order(ordered: bool, expected: list[bytes] | None) -> None:
    stream, answers = FakeStream(b"1", b"2", b"3"), Answers(1)
    talk, _ = conversation(stream, answers, ordered=ordered)
    running = asyncio.create_task(talk.run())
    if ordered:
        await settle()
        assert stream.replies == []
    else:
        await stream.wait_for(2)
    answers.gates[1].set()
    stream.send(None)
    assert await running
    assert stream.replies == (expected or [b"1 done", b"2 done", b"3 done"])


@pytest.mark.parametrize("ordered", [False, True])
async def test_nothing_is_sent_to_a_caller_that_has_gone(ordered: bool) -> None:
    stream, answers = FakeStream(b"1", b"2"), Answers(1, 2)
    talk, _ = conversation(stream, answers, ordered=ordered)
    running = asyncio.create_task(talk.run())
    await settle()
    before = asyncio.all_tasks()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await settle()
    assert stream.replies == []
    assert asyncio.all_tasks() <= before
    assert len(asyncio.all_tasks()) == 1


async def test_a_request_that_is_cancelled_before_it_began_frees_its_id() -> None:
    # All messages are there already, so nothing runs between them.
    stream = FakeStream(b"1", b"-1")
    talk, _ = conversation(stream, Answers())
    running = asyncio.create_task(talk.run())
    await stream.wait_for(1)
    stream.send(b"1", None)
    assert await running
    assert stream.replies == [b"1 CANCELLED", b"1 done"]


async def test_an_idle_stream_keeps_nothing_of_its_last_request() -> None:
    stream, answers = FakeStream(b"1"), Answers()
    talk, _ = conversation(stream, answers)
    running = asyncio.create_task(talk.run())
    await stream.wait_for(1)
    await settle()
    (request,) = answers.seen
    assert request() is None
    stream.send(None)
    assert await running


async def test_a_refused_request_keeps_nothing_until_its_reply_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Request]] = []

    class Watched(Request):
        def __init__(self) -> None:
            made.append(weakref.ref(self))

    monkeypatch.setattr(__name__ + ".Request", Watched)
    stream, answers = FakeStream(b"1", b"2"), Answers()
    stream.slow.clear()
    answers.refuses = True
    talk, _ = conversation(stream, answers)
    running = asyncio.create_task(talk.run())
    await stream.wait_for(1)
    await settle()
    assert [request() for request in made] == [None, None]
    stream.slow.set()
    stream.send(None)
    assert await running
    assert stream.replies == [b"1 RESOURCE_EXHAUSTED", b"2 RESOURCE_EXHAUSTED"]


async def test_the_request_that_waits_for_room_is_counted_and_refused_where_it_is_too_much() -> None:
    stream, answers = FakeStream(b"1"), Answers(1)
    talk, budget = conversation(stream, answers, window=1, memory=10_000)
    running = asyncio.create_task(talk.run())
    stream.send(b"2" + b" " * 999)
    await settle()
    assert budget.held == 2000
    answers.gates[1].set()
    await stream.wait_for(2)
    assert budget.held == 0
    answers.gates[3] = asyncio.Event()
    stream.send(b"3", b"4" + b" " * 9999)
    await settle()
    assert budget.held == 0
    answers.gates[3].set()
    stream.send(None)
    assert await running
    assert stream.replies == [b"1 done", b"2 done", b"3 done", f"4 {Code.INVALID_ARGUMENT.name}".encode()]


@pytest.mark.parametrize("ended", [True, False])
async def test_stopping_it_tells_whether_all_was_read(ended: bool) -> None:
    stream, answers = FakeStream(b"1"), Answers(1)
    if ended:
        stream.send(None)
    talk, _ = conversation(stream, answers)
    running = asyncio.create_task(talk.run())
    await settle()
    talk.stop()
    answers.gates[1].set()
    assert await running is ended
    assert stream.replies == [b"1 done"]
