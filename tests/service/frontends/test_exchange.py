"""Both ends of one front-end's link, in one process: what goes in comes out, and no memory is lost on the way."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service.catalog import Encoder, Encoders, width_of
from birnn_service.compute import Work
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import (
    DeadlineError,
    DrainingError,
    EngineError,
    ExpiredError,
    InvalidRequestError,
    OverloadedError,
    Reason,
    ServiceError,
    UnavailableError,
)
from birnn_service.frontends.arena import Arena, create_memory
from birnn_service.frontends.engine_side import EngineSide
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import Cancel, Done, Encode, Failed, Message, Withdrawn
from birnn_service.frontends.remote_compute import RemoteCompute
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed

# How long a state may take to come about on a busy machine.
PATIENCE_SECONDS = 60
MODELS = Path(__file__).parents[3] / "models"
INFO = EngineInfo("none", "cpu", "float32", slots=1, max_rows=1, parallel_slots=True)


def expected(encoder: Encoder, output: Output, batch: RaggedBatch) -> NDArray[np.float32]:
    """Made-up encodings that tell sequences, tokens and outputs apart."""
    sums = np.add.reduceat(batch.ids, batch.offsets[:-1])
    column = sums if output is Output.POOLED else batch.ids + 1000
    return np.asarray(column[:, None] + np.arange(width_of(encoder, output)), dtype=np.float32)


class Fake:
    """Computes made-up encodings after a while, or fails."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.under_way = 0
        self.works: list[Work] = []
        self.random = random.Random(0)

    async def encode(self, work: Work) -> Computed:
        self.works.append(work)
        self.under_way += 1
        try:
            await self.hold.wait()
            await asyncio.sleep(self.random.random() / 200)
            if self.error:
                raise self.error
            return Computed(expected(work.encoder, work.output, work.batch), 1.5, 2.5)
        finally:
            self.under_way -= 1


class Exchange:
    """A front-end's computing, connected to a fake."""

    def __init__(self, encoders: Encoders[RemoteEncoder]) -> None:
        self.encoders = encoders
        self.fake = Fake()
        self.encoder = encoders.find("smiles", "")
        self.remote: RemoteCompute
        self.side: EngineSide
        self.links: list[Link] = []

    async def open(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        front = await Link.open(theirs, self._answered, lambda: self.remote.lose())
        engine = await Link.open(ours, self._asked, lambda: self.side.close())
        self.remote = RemoteCompute(Arena(memory), front)
        self.side = EngineSide(Arena(memory), self.encoders, self.fake, engine.send)
        self.links = [front, engine]

    async def encode(
        self,
        batch: RaggedBatch,
        output: Output = Output.POOLED,
        caller: str = "a",
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> Computed:
        return await self.remote.encode(Work(self.encoder, output, batch, caller, deadline, priority))

    def _answered(self, message: Message) -> None:
        assert isinstance(message, Done | Failed | Withdrawn)
        self.remote.answered(message)

    def _asked(self, message: Message) -> None:
        if isinstance(message, Encode):
            self.side.begin(message)
        else:
            assert isinstance(message, Cancel)
            self.side.cancel(message)

    async def all_memory_is_free(self) -> None:
        await until(lambda: not self.remote.memory_used)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def exchanging(mib: int = 32) -> AsyncIterator[Exchange]:
    bundle = Bundle.load(MODELS / "smiles" / "1")
    exchange = Exchange(Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, INFO)], {}))
    memory = create_memory(mib << 20)
    try:
        await exchange.open(memory)
        yield exchange
    finally:
        os.close(memory)
        for link in exchange.links:
            link.close()
        await asyncio.sleep(0.01)


def random_batch(source: random.Random, most: int) -> RaggedBatch:
    return RaggedBatch.from_lists(
        [[source.randrange(100) for _ in range(source.randrange(1, 60))] for _ in range(source.randrange(1, most))]
    )


async def test_many_callers_get_their_own_encodings_and_some_that_leave_cost_nothing() -> None:
    source = random.Random(1)

    async def call(exchange: Exchange) -> int:
        await asyncio.sleep(source.random() / 20)
        batch, output = random_batch(source, 20), source.choice(list(Output))
        task = asyncio.create_task(exchange.encode(batch, output))
        if source.random() < 0.3:
            await asyncio.sleep(source.random() / 200)
            task.cancel()
        with suppress(asyncio.CancelledError):
            computed = await task
            assert (computed.values == expected(exchange.encoder, output, batch)).all()
            assert (computed.queue, computed.compute) == (1.5, 2.5)
            return 1
        return 0

    async with exchanging(256) as exchange:
        answered = sum(await asyncio.gather(*(call(exchange) for _ in range(400))))
        await exchange.all_memory_is_free()
    assert 200 < answered < 400


@pytest.mark.parametrize("output", list(Output))
async def test_a_result_of_many_pieces_arrives_whole(output: Output) -> None:
    batch = RaggedBatch.from_lists([[number % 90, 1] for number in range(9_000)])
    async with exchanging(64) as exchange:
        computed = await exchange.encode(batch, output)
        assert (computed.values == expected(exchange.encoder, output, batch)).all()


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("too much", 3.25, Reason.MEMORY),
        DeadlineError("too late"),
        ExpiredError("too late by now"),
        UnavailableError("not now"),
        DrainingError("not any more"),
        EngineError("broken"),
    ],
)
async def test_errors_arrive_as_they_were_raised(error: ServiceError) -> None:
    async with exchanging() as exchange:
        exchange.fake.error = error
        with pytest.raises(type(error), match=str(error)) as caught:
            await exchange.encode(random_batch(random.Random(2), 5))
        assert getattr(caught.value, "retry_after", None) == getattr(error, "retry_after", None)
        assert isinstance(caught.value, ServiceError)
        assert caught.value.reason is error.reason
        assert exchange.remote.memory_used == 0


async def test_what_nobody_thought_of_is_an_error_of_the_engine() -> None:
    async with exchanging() as exchange:
        exchange.fake.error = ZeroDivisionError("one over zero")
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            await exchange.encode(random_batch(random.Random(2), 5))


async def test_deadline_caller_and_priority_arrive_as_they_were() -> None:
    async with exchanging() as exchange:
        batch = random_batch(random.Random(3), 5)
        await exchange.encode(batch, caller="ipv6:2001:db8::/64", deadline=1234.5)
        await exchange.encode(batch, caller="ä", priority=Priority.LOW)
        assert [work.deadline for work in exchange.fake.works] == [1234.5, None]
        assert [work.caller for work in exchange.fake.works] == ["ipv6:2001:db8::/64", "ä"]
        assert [work.priority for work in exchange.fake.works] == [Priority.NORMAL, Priority.LOW]


async def test_a_cancelled_request_ends_on_the_other_side_too() -> None:
    async with exchanging() as exchange, asyncio.timeout(PATIENCE_SECONDS):
        exchange.fake.hold.clear()
        batch = random_batch(random.Random(4), 5)
        task = asyncio.create_task(exchange.encode(batch))
        await until(lambda: exchange.fake.under_way == 1)
        task.cancel()
        await until(lambda: not exchange.fake.under_way)
        await exchange.all_memory_is_free()


async def test_memory_of_a_cancelled_request_is_taken_until_the_other_side_has_let_go() -> None:
    async with exchanging() as exchange:
        exchange.fake.hold.clear()
        batch = random_batch(random.Random(4), 5)
        task = asyncio.create_task(exchange.encode(batch))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert task.done()
        assert exchange.remote.memory_used > 0
        await exchange.all_memory_is_free()


async def test_a_full_arena_refuses_what_is_too_much_and_the_others_are_answered() -> None:
    batch = RaggedBatch.from_lists([[1, 2, 3]] * 200)
    async with exchanging(1) as exchange, asyncio.timeout(PATIENCE_SECONDS):
        exchange.fake.hold.clear()
        calls = [asyncio.create_task(exchange.encode(batch)) for _ in range(5)]
        await until(lambda: sum(call.done() for call in calls) == 3)
        exchange.fake.hold.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Computed, Computed] + [OverloadedError] * 3
        with pytest.raises(InvalidRequestError, match="split"):
            await exchange.encode(batch, Output.TOKENS)
        assert len((await exchange.encode(batch)).values) == 200


async def test_when_the_engine_process_goes_its_callers_hear_so_at_once() -> None:
    async with exchanging() as exchange, asyncio.timeout(PATIENCE_SECONDS):
        exchange.fake.hold.clear()
        batch = random_batch(random.Random(5), 5)
        task = asyncio.create_task(exchange.encode(batch))
        await until(lambda: exchange.fake.under_way == 1)
        exchange.links[1].close()
        with pytest.raises(UnavailableError, match="ended before it answered"):
            await task
        with pytest.raises(UnavailableError, match="gone"):
            await exchange.encode(batch)


async def test_when_a_front_end_goes_its_requests_are_withdrawn() -> None:
    async with exchanging() as exchange, asyncio.timeout(PATIENCE_SECONDS):
        exchange.fake.hold.clear()
        batches = [random_batch(random.Random(seed), 5) for seed in range(20)]
        calls = [asyncio.create_task(exchange.encode(batch)) for batch in batches]
        await until(lambda: exchange.fake.under_way == len(calls))
        exchange.links[0].close()
        await until(lambda: not exchange.fake.under_way)
        await asyncio.gather(*calls, return_exceptions=True)
