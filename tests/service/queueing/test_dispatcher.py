"""The dispatcher: every request gets its own rows, whatever else waits, fails, is cancelled or ends."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import Output
from birnn_service.errors import EngineError, UnavailableError
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.priority import Priority
from tests.service.queueing.sum_engine import COST, SumEngine, batch_of, begun, lane_of

REQUESTS = st.lists(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=9), min_size=1, max_size=20), min_size=1, max_size=12
)


@given(REQUESTS, st.sampled_from(list(Output)), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_request_gets_its_own_rows_in_its_own_order(
    requests: list[list[list[int]]], output: Output, slots: int
) -> None:
    async def scenario() -> None:
        engine = SumEngine(slots)
        lane = lane_of(engine, output)
        dispatcher = Dispatcher([lane], slots)
        results = await asyncio.gather(*(dispatcher.encode(lane, batch_of(*rows), caller="a") for rows in requests))
        dispatcher.close()
        for rows, result in zip(requests, results, strict=True):
            if output is Output.POOLED:
                assert result.values.tolist() == [[sum(row), len(row)] for row in rows]
            else:
                assert result.values.tolist() == [[number, number**2] for row in rows for number in row]
        computed = sorted(row for batch in engine.batches for row in batch)
        wanted = sorted(row for rows in requests for row in rows)
        if output is Output.POOLED:
            # Equal sequences that are in flight together are computed once, or twice where that is sooner.
            assert len(computed) <= len(wanted)
            computed, wanted = ([list(row) for row in sorted(set(map(tuple, rows)))] for rows in (computed, wanted))
        assert computed == wanted, "a row was lost, or computed twice"

    asyncio.run(scenario())


async def test_an_idle_slot_takes_what_is_there_at_once() -> None:
    engine = SumEngine()
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 2)
    await dispatcher.encode(lane, batch_of([1, 2]), caller="a")
    assert engine.batches == [[[1, 2]]]
    dispatcher.close()


async def test_requests_that_come_in_one_iteration_of_the_loop_run_together() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    results = await asyncio.gather(*(dispatcher.encode(lane, batch_of([number]), caller="a") for number in range(5)))
    assert [result.values.tolist() for result in results] == [[[number, 1]] for number in range(5)]
    assert engine.batches == [[[number] for number in range(5)]]
    dispatcher.close()


async def test_idle_cores_share_a_request() -> None:
    engine = SumEngine()
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 2)
    await dispatcher.encode(lane, batch_of(*([number] for number in range(6))), caller="a")
    assert sorted(map(len, engine.batches)) == [3, 3]
    dispatcher.close()


async def test_waiting_requests_are_batched_together_by_length() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1e-5))
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    first = await begun(dispatcher.encode(lane, batch_of([0]), caller="a"))
    rows = [[1] * 3, [2] * 9, [3] * 3, [4] * 9, [5] * 3]
    others = [asyncio.create_task(dispatcher.encode(lane, batch_of(row), caller="a")) for row in rows]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, *others)
    assert engine.batches == [[[0]], [rows[0], rows[2], rows[4]], [rows[1], rows[3]]]
    dispatcher.close()


async def test_a_small_request_passes_between_the_rows_of_a_large_one() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    large = await begun(
        dispatcher.encode(lane, batch_of(*([1, 2, 1000 + number] for number in range(800))), caller="a")
    )
    small = await begun(dispatcher.encode(lane, batch_of([4, 5]), caller="a"))
    engine.gate.set()
    await small
    assert not large.done()
    assert len(engine.batches) < 50
    assert len((await large).values) == 800
    dispatcher.close()


async def test_a_failed_batch_fails_its_requests_and_no_others() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    with pytest.raises(EngineError, match="RuntimeError"):
        await dispatcher.encode(lane, batch_of([666], [1]), caller="a")
    assert (await dispatcher.encode(lane, batch_of([1]), caller="a")).values.tolist() == [[1, 1]]
    assert len(lane.queue) == 0
    dispatcher.close()


async def test_a_cancelled_request_leaves_the_queue_and_is_never_computed() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    first = await begun(dispatcher.encode(lane, batch_of([0]), caller="a"))
    second = await begun(dispatcher.encode(lane, batch_of([1], [2]), caller="a"))
    assert len(lane.queue) == 2
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(lane.queue) == 0
    engine.gate.set()
    await first
    assert engine.batches == [[[0]]]
    dispatcher.close()


async def test_closing_fails_what_waits_instead_of_leaving_it_hanging() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    tasks = [asyncio.create_task(dispatcher.encode(lane, batch_of([number]), caller="a")) for number in range(3)]
    await asyncio.sleep(0)
    dispatcher.close()
    engine.gate.set()
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task
    with pytest.raises(UnavailableError):
        await dispatcher.encode(lane, batch_of([1]), caller="a")


async def test_an_engine_that_answers_with_too_few_rows_fails_the_request_and_leaves_nobody_waiting() -> None:
    class Forgetful(SumEngine):
        def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
            return super().run(batch, output)[:-1]

    engine = Forgetful(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    for _ in range(2):
        with pytest.raises(EngineError, match="unexpectedly"):
            await dispatcher.encode(lane, batch_of([1], [2], [3]), caller="a")
    dispatcher.close()


@pytest.mark.parametrize(("factor", "used"), [(0.6, [2, 2]), (0.95, [2, 1, 1])])
async def test_slots_that_are_idle_together_run_a_batch_together_where_that_ends_sooner(
    factor: float, used: list[int]
) -> None:
    class Lending(SumEngine):
        def __init__(self) -> None:
            super().__init__(slots=2)
            self.info = replace(self.info, run_slots=2)
            self.used: list[int] = []

        def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
            self.used.append(slots)
            return super().run(batch, output)

    engine = Lending()
    lane = Lane("sum", engine, Output.POOLED, 2, COST, COST.scaled(factor))
    dispatcher = Dispatcher([lane], 2)
    await dispatcher.encode(lane, batch_of([1]), caller="a")
    await dispatcher.encode(lane, batch_of([1], [2]), caller="a")
    assert engine.used == used
    dispatcher.close()


async def test_a_high_request_passes_those_of_its_caller_and_a_low_one_lets_others_pass() -> None:
    engine = SumEngine(slots=1)
    engine.info = replace(engine.info, max_rows=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    running = await begun(dispatcher.encode(lane, batch_of([0]), caller="a"))
    calls = [
        ("a", Priority.LOW, 1), ("a", Priority.NORMAL, 2), ("a", Priority.NORMAL, 3), ("a", Priority.HIGH, 4),
    ]  # fmt: skip
    tasks = [
        asyncio.create_task(dispatcher.encode(lane, batch_of([number]), caller=caller, priority=priority))
        for caller, priority, number in calls
    ]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(running, *tasks)
    assert engine.batches == [[[0]], [[4]], [[2]], [[3]], [[1]]]
    dispatcher.close()


async def test_lanes_come_and_go_while_others_are_served() -> None:
    first, second = lane_of(SumEngine()), lane_of(SumEngine(3), Output.TOKENS)
    dispatcher = Dispatcher()
    dispatcher.add([first])
    assert (await dispatcher.encode(first, batch_of([1, 2]), caller="a")).values.tolist() == [[3, 2]]
    dispatcher.add([second])
    assert (await dispatcher.encode(second, batch_of([1, 2]), caller="a")).values.tolist() == [[1, 1], [2, 4]]
    await dispatcher.remove([first])
    assert (await dispatcher.encode(second, batch_of([3]), caller="a")).values.tolist() == [[3, 9]]
    await dispatcher.remove([second])
    dispatcher.add([first])
    assert (await dispatcher.encode(first, batch_of([5]), caller="a")).values.tolist() == [[5, 1]]
    dispatcher.close()


async def test_a_lane_is_removed_once_the_batch_of_a_call_that_was_cancelled_has_ended() -> None:
    engine = SumEngine(1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1)
    engine.gate.clear()
    call = await begun(dispatcher.encode(lane, batch_of([1]), caller="a"))
    await asyncio.sleep(0)
    call.cancel()
    removing = asyncio.create_task(dispatcher.remove([lane]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not removing.done()
    engine.gate.set()
    await asyncio.wait_for(removing, 60)
    assert engine.batches == [[[1]]]
    dispatcher.close()
