"""What the batcher refuses at once, and what it drops: deadlines and the backlog."""

import asyncio
import time

import pytest

from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.metrics import Metrics
from birnn_service.queueing.batcher import Batcher
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.loop_share import LoopShare
from tests.service.queueing.sum_engine import SumEngine, batch_of, lane_of


async def test_a_deadline_that_cannot_be_met_is_refused_before_it_is_queued() -> None:
    engine = SumEngine()
    lane = lane_of(engine, cost=CostModel(1.0, 0.0, 0.0))
    batcher = Batcher([lane], 2, Metrics())
    with pytest.raises(DeadlineError, match="send fewer"):
        await batcher.encode(lane, batch_of(*([number] for number in range(100))), deadline=time.monotonic() + 0.01)
    assert engine.batches == []
    batcher.close()


async def test_a_request_whose_deadline_passes_in_the_queue_is_dropped_before_it_is_computed() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    now = 0.0
    batcher = Batcher([lane], 1, Metrics(), clock=lambda: now)
    engine.gate.clear()
    first = asyncio.create_task(batcher.encode(lane, batch_of([0])))
    await asyncio.sleep(0)
    late = asyncio.create_task(batcher.encode(lane, batch_of([1]), deadline=1.0))
    fine = asyncio.create_task(batcher.encode(lane, batch_of([2]), deadline=100.0))
    await asyncio.sleep(0)
    now = 2.0
    engine.gate.set()
    await first
    with pytest.raises(DeadlineError):
        await late
    await fine
    assert engine.batches == [[[0]], [[2]]]
    batcher.close()


async def test_a_backlog_beyond_the_bound_is_refused_and_says_when_to_come_back() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1.0))
    batcher = Batcher([lane], 1, Metrics(), max_backlog_seconds=10.0)
    engine.gate.clear()
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(batcher.encode(lane, batch_of([number] * 6))))
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="limit is 10 s") as caught:
        await batcher.encode(lane, batch_of([1]))
    assert caught.value.retry_after > 0
    engine.gate.set()
    await asyncio.gather(*tasks)
    batcher.close()


async def test_an_idle_server_accepts_a_request_of_any_size() -> None:
    engine = SumEngine()
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1.0))
    batcher = Batcher([lane], 2, Metrics(), max_backlog_seconds=1.0)
    assert len((await batcher.encode(lane, batch_of(*([number] for number in range(500))))).values) == 500
    batcher.close()


@pytest.mark.parametrize(("busy", "refused"), [(0.9, True), (0.1, False)])
async def test_a_slot_that_the_event_loop_keeps_is_not_counted_on_for_deadlines(busy: float, refused: bool) -> None:
    share = LoopShare(clock=lambda: busy)
    for _ in range(200):
        share.note(0.0, 1.0)
    engine = SumEngine()
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1.0))
    batcher = Batcher([lane], 2, Metrics(), cores=2, loop_share=share)
    await batcher.encode(lane, batch_of([1]))
    # About six seconds of work on one slot, three on two.
    request = batcher.encode(lane, batch_of(*([number] for number in range(6))), deadline=time.monotonic() + 4.5)
    if refused:
        with pytest.raises(DeadlineError):
            await request
    else:
        assert len((await request).values) == 6
    batcher.close()
