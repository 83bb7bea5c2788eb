"""What the dispatcher refuses at once, and what it drops: deadlines and the backlog."""

import asyncio
import time

import pytest

from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.dispatcher import Dispatcher
from tests.service.queueing.sum_engine import SumEngine, batch_of, begun, lane_of


async def test_a_deadline_that_cannot_be_met_is_refused_before_it_is_queued() -> None:
    engine = SumEngine()
    lane = lane_of(engine, cost=CostModel(1.0, 0.0, 0.0))
    dispatcher = Dispatcher([lane], 2)
    with pytest.raises(DeadlineError, match="send fewer"):
        await dispatcher.encode(
            lane, batch_of(*([number] for number in range(100))), deadline=time.monotonic() + 0.01, caller="a"
        )
    assert engine.batches == []
    dispatcher.close()


async def test_a_request_whose_deadline_passes_in_the_queue_is_dropped_before_it_is_computed() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    now = 0.0
    dispatcher = Dispatcher([lane], 1, clock=lambda: now)
    engine.gate.clear()
    first = await begun(dispatcher.encode(lane, batch_of([0]), caller="a"))
    late = asyncio.create_task(dispatcher.encode(lane, batch_of([1]), deadline=1.0, caller="a"))
    fine = await begun(dispatcher.encode(lane, batch_of([2]), deadline=100.0, caller="a"))
    now = 2.0
    engine.gate.set()
    await first
    with pytest.raises(DeadlineError):
        await late
    await fine
    assert engine.batches == [[[0]], [[2]]]
    dispatcher.close()


async def test_a_backlog_beyond_the_bound_is_refused_and_says_when_to_come_back() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1.0))
    dispatcher = Dispatcher([lane], 1, max_backlog_seconds=10.0)
    engine.gate.clear()
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(dispatcher.encode(lane, batch_of([number] * 6), caller="a")))
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="limit is 10 s") as caught:
        await dispatcher.encode(lane, batch_of([1]), caller="a")
    assert caught.value.retry_after > 0
    engine.gate.set()
    await asyncio.gather(*tasks)
    dispatcher.close()


async def test_an_idle_server_accepts_a_request_of_any_size() -> None:
    engine = SumEngine()
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1.0))
    dispatcher = Dispatcher([lane], 2, max_backlog_seconds=1.0)
    assert (
        len((await dispatcher.encode(lane, batch_of(*([number] for number in range(500))), caller="a")).values) == 500
    )
    dispatcher.close()


async def test_a_caller_whose_share_of_the_backlog_is_full_is_refused_and_no_other() -> None:
    engine = SumEngine(slots=1)
    lane, other = (lane_of(engine, cost=CostModel(0.0, 0.0, 1.0)) for _ in range(2))
    dispatcher = Dispatcher([lane, other], 1, max_backlog_seconds=10.0)
    engine.gate.clear()
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(dispatcher.encode(lane, batch_of([number] * 6), caller="greedy")))
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await dispatcher.encode(lane, batch_of([1]), caller="greedy")
    for encoder in (lane, other):
        tasks.append(asyncio.create_task(dispatcher.encode(encoder, batch_of([7]), caller="small")))
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="this caller's share of it is"):
        await dispatcher.encode(lane, batch_of([1] * 6), caller="small")
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert engine.batches[1:3] == [[[7]], [[7]]]
    dispatcher.close()
