"""Equal sequences in flight are computed once, and a follower is not lost with the one it follows."""

import asyncio
from dataclasses import replace

import pytest

from birnn_service.errors import EngineError, UnavailableError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.queue_metrics import QueueMetrics
from tests.service.queueing.sum_engine import SumEngine, batch_of, begun, lane_of


async def test_equal_sequences_in_flight_are_computed_once() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    metrics = Metrics()
    dispatcher = Dispatcher([lane], 1, observers=[QueueMetrics(metrics)])
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([7]), caller="a"))
    waiting = await begun(dispatcher.encode(lane, batch_of([1, 2], [7], [1, 2]), caller="a"))
    other = await begun(dispatcher.encode(lane, batch_of([1, 2]), caller="a"))
    engine.gate.set()
    assert (await running).values.tolist() == [[7, 1]]
    assert (await waiting).values.tolist() == [[3, 2], [7, 1], [3, 2]]
    assert (await other).values.tolist() == [[3, 2]]
    assert engine.batches == [[[7]], [[1, 2]]]
    assert metrics.registry.get_sample_value("birnn_shared_sequences_total", {"encoder": "sum", "version": "7"}) == 3
    await dispatcher.encode(lane, batch_of([7]), caller="a")
    assert engine.batches[2:] == [[[7]]], "what has been answered is forgotten"
    dispatcher.close()


async def test_a_sequence_is_computed_though_the_request_that_it_followed_is_cancelled() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([0]), caller="a"))
    leader = await begun(dispatcher.encode(lane, batch_of([5, 5], [6]), caller="a"))
    followers = [asyncio.create_task(dispatcher.encode(lane, batch_of([5, 5]), caller="a")) for _ in range(2)]
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    await running
    assert [(await follower).values.tolist() for follower in followers] == [[[10, 2]]] * 2
    assert engine.batches == [[[0]], [[5, 5]]]
    dispatcher.close()


async def test_followers_of_a_failed_batch_are_tried_again_by_themselves() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    leader = await begun(dispatcher.encode(lane, batch_of([4], [666]), caller="a"))
    follower = await begun(dispatcher.encode(lane, batch_of([4]), caller="a"))
    engine.gate.set()
    with pytest.raises(EngineError):
        await leader
    assert (await follower).values.tolist() == [[4, 1]]
    assert len(lane.queue) == 0
    dispatcher.close()


async def test_closing_fails_those_who_follow_others_too() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    tasks = [asyncio.create_task(dispatcher.encode(lane, batch_of([9]), caller="a")) for _ in range(3)]
    await asyncio.sleep(0)
    dispatcher.close()
    engine.gate.set()
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task


async def test_a_sequence_that_waits_far_back_in_the_queue_of_one_caller_delays_no_other() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([0]), caller="greedy"))
    waiting = []
    for number in range(1, 40):
        rows = [[number, row] for row in range(8)]
        waiting.append(asyncio.create_task(dispatcher.encode(lane, batch_of(*rows), caller="greedy")))
        await asyncio.sleep(0)
    single = await begun(dispatcher.encode(lane, batch_of([39, 7]), caller="single"))
    engine.gate.set()
    assert (await single).values.tolist() == [[46, 2]]
    assert len(engine.batches) < 8
    assert not waiting[-1].done()
    await asyncio.gather(running, *waiting)
    dispatcher.close()


async def test_an_urgent_sequence_does_not_wait_for_an_equal_one_that_is_less_urgent() -> None:
    engine = SumEngine(slots=1)
    engine.info = replace(engine.info, max_rows=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    tasks = []
    for number, priority in [(0, Priority.NORMAL), (7, Priority.LOW), (5, Priority.NORMAL), (7, Priority.HIGH)]:
        tasks.append(asyncio.create_task(dispatcher.encode(lane, batch_of([number]), caller="a", priority=priority)))
        await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert engine.batches == [[[0]], [[7]], [[5]], [[7]]]
    dispatcher.close()


async def test_of_those_whose_leader_is_gone_the_most_urgent_leads() -> None:
    engine = SumEngine(slots=1)
    engine.info = replace(engine.info, max_rows=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    tasks = []
    for number, priority in [
        (0, Priority.NORMAL), (7, Priority.HIGH), (7, Priority.LOW), (7, Priority.HIGH), (5, Priority.NORMAL)
    ]:  # fmt: skip
        tasks.append(asyncio.create_task(dispatcher.encode(lane, batch_of([number]), caller="a", priority=priority)))
        await asyncio.sleep(0)
    tasks.pop(1).cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(*tasks)
    assert engine.batches == [[[0]], [[7]], [[5]]]
    dispatcher.close()


@pytest.mark.parametrize(("other", "times"), [("name:a", 1), ("name:b", 2), ("ipv4:192.0.2.1", 2)])
async def test_nobody_learns_from_the_time_of_a_reply_what_a_tenant_has_in_flight(other: str, times: int) -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([7]), caller="name:a"))
    asking = await begun(dispatcher.encode(lane, batch_of([7]), caller=other))
    engine.gate.set()
    assert (await running).values.tolist() == (await asking).values.tolist() == [[7, 1]]
    assert engine.batches == times * [[[7]]]
    dispatcher.close()


async def test_followers_of_a_cancelled_request_lead_only_their_own_tenant() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([0]), caller="name:a"))
    tasks = [asyncio.create_task(dispatcher.encode(lane, batch_of([5]), caller=f"name:{name}")) for name in "aabb"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    await running
    assert [(await task).values.tolist() for task in (tasks[1], tasks[3])] == [[[5, 1]]] * 2
    assert sum(batch.count([5]) for batch in engine.batches) == 2
    dispatcher.close()
