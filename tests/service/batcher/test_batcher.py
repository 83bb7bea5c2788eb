"""The batcher with an engine whose answers are easy to check, so that a row that strays is seen at once."""

import asyncio
import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch
from service.batcher.batcher import Batcher
from service.batcher.cost import CostModel
from service.batcher.lane import Lane
from service.batcher.lone_caller import STREAK, TURNAROUND
from service.batcher.loop_share import LoopShare
from service.engine.engine import EngineInfo, Output
from service.errors import DeadlineError, EngineError, OverloadedError, UnavailableError
from service.metrics import Metrics

COST = CostModel(fixed=1e-4, per_step=1e-5, per_cell=1e-5)


class SumEngine:
    """Encodes a sequence as its sum and length, a token as itself and its square."""

    def __init__(self, slots: int = 2) -> None:
        self.info = EngineInfo("sum", "cpu", "float32", slots, max_rows=8, parallel_slots=True)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[list[int]]] = []

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        self.gate.wait()
        rows = [batch.row(row) for row in range(len(batch))]
        self.batches.append([row.tolist() for row in rows])
        if any((row == 666).any() for row in rows):
            raise RuntimeError("a broken engine")
        if output is Output.POOLED:
            return np.array([[row.sum(), len(row)] for row in rows], dtype=np.float32)
        return np.stack([batch.ids, batch.ids**2], axis=1).astype(np.float32)


def lane_of(engine: SumEngine, output: Output = Output.POOLED, cost: CostModel = COST) -> Lane:
    return Lane("sum", engine, output, 2, cost)


def batch_of(*rows: list[int]) -> RaggedBatch:
    return RaggedBatch.from_lists(rows)


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
        batcher = Batcher([lane], slots, Metrics())
        results = await asyncio.gather(*(batcher.encode(lane, batch_of(*rows)) for rows in requests))
        batcher.close()
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
    batcher = Batcher([lane], 2, Metrics())
    await batcher.encode(lane, batch_of([1, 2]))
    assert engine.batches == [[[1, 2]]]
    batcher.close()


async def test_requests_that_come_in_one_iteration_of_the_loop_run_together() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    results = await asyncio.gather(*(batcher.encode(lane, batch_of([number])) for number in range(5)))
    assert [result.values.tolist() for result in results] == [[[number, 1]] for number in range(5)]
    assert engine.batches == [[[number] for number in range(5)]]
    batcher.close()


@pytest.mark.parametrize(("busy", "cores", "sizes"), [(0.9, 2, [6]), (0.9, 3, [3, 3]), (0.1, 2, [3, 3])])
async def test_a_busy_event_loop_keeps_a_core_where_there_is_none_to_spare(
    busy: float, cores: int, sizes: list[int]
) -> None:
    share = LoopShare(clock=lambda: busy)
    for _ in range(200):
        share.note(0.0, 1.0)
    engine = SumEngine()
    lane = lane_of(engine)
    batcher = Batcher([lane], 2, Metrics(), cores=cores, loop_share=share)
    result = await batcher.encode(lane, batch_of(*([number] for number in range(6))))
    assert [value for value, _ in result.values.tolist()] == list(range(6))
    assert sorted(map(len, engine.batches)) == sizes
    batcher.close()


async def test_idle_cores_share_a_request() -> None:
    engine = SumEngine()
    lane = lane_of(engine)
    batcher = Batcher([lane], 2, Metrics())
    await batcher.encode(lane, batch_of(*([number] for number in range(6))))
    assert sorted(map(len, engine.batches)) == [3, 3]
    batcher.close()


async def test_waiting_requests_are_batched_together_by_length() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine, cost=CostModel(0.0, 0.0, 1e-5))
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    first = asyncio.create_task(batcher.encode(lane, batch_of([0])))
    await asyncio.sleep(0)
    rows = [[1] * 3, [2] * 9, [3] * 3, [4] * 9, [5] * 3]
    others = [asyncio.create_task(batcher.encode(lane, batch_of(row))) for row in rows]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, *others)
    assert engine.batches == [[[0]], [rows[0], rows[2], rows[4]], [rows[1], rows[3]]]
    batcher.close()


async def test_a_small_request_passes_between_the_rows_of_a_large_one() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    large = asyncio.create_task(batcher.encode(lane, batch_of(*([1, 2, 1000 + number] for number in range(800)))))
    await asyncio.sleep(0)
    small = asyncio.create_task(batcher.encode(lane, batch_of([4, 5])))
    await asyncio.sleep(0)
    engine.gate.set()
    await small
    assert not large.done()
    assert len(engine.batches) < 50
    assert len((await large).values) == 800
    batcher.close()


async def test_a_failed_batch_fails_its_requests_and_no_others() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    with pytest.raises(EngineError, match="a broken engine"):
        await batcher.encode(lane, batch_of([666], [1]))
    assert (await batcher.encode(lane, batch_of([1]))).values.tolist() == [[1, 1]]
    assert len(lane.waiting) == 0
    batcher.close()


async def test_a_cancelled_request_leaves_the_queue_and_is_never_computed() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    first = asyncio.create_task(batcher.encode(lane, batch_of([0])))
    await asyncio.sleep(0)
    second = asyncio.create_task(batcher.encode(lane, batch_of([1], [2])))
    await asyncio.sleep(0)
    assert len(lane.waiting) == 2
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(lane.waiting) == 0
    engine.gate.set()
    await first
    assert engine.batches == [[[0]]]
    batcher.close()


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


async def test_closing_fails_what_waits_instead_of_leaving_it_hanging() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    tasks = [asyncio.create_task(batcher.encode(lane, batch_of([number]))) for number in range(3)]
    await asyncio.sleep(0)
    batcher.close()
    engine.gate.set()
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task
    with pytest.raises(UnavailableError):
        await batcher.encode(lane, batch_of([1]))


async def test_an_engine_that_answers_with_too_few_rows_fails_the_request_and_leaves_nobody_waiting() -> None:
    class Forgetful(SumEngine):
        def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
            return super().run(batch, output)[:-1]

    engine = Forgetful(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    for _ in range(2):
        with pytest.raises(EngineError, match="unexpectedly"):
            await batcher.encode(lane, batch_of([1], [2], [3]))
    batcher.close()


async def test_equal_sequences_in_flight_are_computed_once() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    metrics = Metrics()
    batcher = Batcher([lane], 1, metrics)
    engine.gate.clear()
    running = asyncio.create_task(batcher.encode(lane, batch_of([7])))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(batcher.encode(lane, batch_of([1, 2], [7], [1, 2])))
    await asyncio.sleep(0)
    other = asyncio.create_task(batcher.encode(lane, batch_of([1, 2])))
    await asyncio.sleep(0)
    engine.gate.set()
    assert (await running).values.tolist() == [[7, 1]]
    assert (await waiting).values.tolist() == [[3, 2], [7, 1], [3, 2]]
    assert (await other).values.tolist() == [[3, 2]]
    assert engine.batches == [[[7]], [[1, 2]]]
    assert metrics.registry.get_sample_value("birnn_shared_sequences_total", {"encoder": "sum"}) == 3
    await batcher.encode(lane, batch_of([7]))
    assert engine.batches[2:] == [[[7]]], "what has been answered is forgotten"
    batcher.close()


async def test_a_sequence_is_computed_though_the_request_that_it_followed_is_cancelled() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    running = asyncio.create_task(batcher.encode(lane, batch_of([0])))
    await asyncio.sleep(0)
    leader = asyncio.create_task(batcher.encode(lane, batch_of([5, 5], [6])))
    await asyncio.sleep(0)
    followers = [asyncio.create_task(batcher.encode(lane, batch_of([5, 5]))) for _ in range(2)]
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    await running
    assert [(await follower).values.tolist() for follower in followers] == [[[10, 2]]] * 2
    assert engine.batches == [[[0]], [[5, 5]]]
    batcher.close()


async def test_followers_of_a_failed_batch_are_tried_again_by_themselves() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    leader = asyncio.create_task(batcher.encode(lane, batch_of([4], [666])))
    await asyncio.sleep(0)
    follower = asyncio.create_task(batcher.encode(lane, batch_of([4])))
    await asyncio.sleep(0)
    engine.gate.set()
    with pytest.raises(EngineError):
        await leader
    assert (await follower).values.tolist() == [[4, 1]]
    assert len(lane.waiting) == 0
    batcher.close()


async def test_closing_fails_those_who_follow_others_too() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics())
    engine.gate.clear()
    tasks = [asyncio.create_task(batcher.encode(lane, batch_of([9]))) for _ in range(3)]
    await asyncio.sleep(0)
    batcher.close()
    engine.gate.set()
    for task in tasks:
        with pytest.raises(UnavailableError):
            await task


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
    batcher = Batcher([lane], 2, Metrics())
    await batcher.encode(lane, batch_of([1]))
    await batcher.encode(lane, batch_of([1], [2]))
    assert engine.used == used
    batcher.close()


TICKS = itertools.count()


class WhereRun(SumEngine):
    """Notes on which thread each batch ran."""

    def __init__(self, slots: int = 2) -> None:
        super().__init__(slots)
        self.threads: list[str] = []

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        self.threads.append(threading.current_thread().name)
        return super().run(batch, output)

    def in_loop(self) -> list[bool]:
        return [not name.startswith("birnn-slot") for name in self.threads]


def ticking() -> float:
    """A clock on which every look takes so long that a caller may have come back meanwhile."""
    return 5 * TURNAROUND * next(TICKS)


async def one_after_another(batcher: Batcher, lane: Lane, count: int) -> None:
    for number in range(count):
        assert (await batcher.encode(lane, batch_of([number, 1]))).values.tolist() == [[number + 1, 2]]


async def test_the_event_loop_runs_the_short_batches_of_a_lone_caller_itself() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    metrics = Metrics()
    batcher = Batcher([lane], 2, metrics, clock=ticking)
    await one_after_another(batcher, lane, STREAK + 5)
    assert engine.in_loop() == [False] * STREAK + [True] * 5
    assert metrics.registry.get_sample_value("birnn_sequences_total", {"encoder": "sum"}) == STREAK + 5
    batcher.close()


async def test_a_long_batch_of_a_lone_caller_leaves_the_event_loop_to_others() -> None:
    engine = WhereRun()
    lane = lane_of(engine, cost=CostModel(1.0, 0.0, 0.0))
    batcher = Batcher([lane], 2, Metrics(), clock=ticking)
    await one_after_another(batcher, lane, STREAK + 3)
    assert not any(engine.in_loop())
    batcher.close()


async def test_batches_side_by_side_of_a_lone_caller_run_on_their_slots() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    batcher = Batcher([lane], 2, Metrics(), clock=ticking)
    await one_after_another(batcher, lane, STREAK + 2)
    before = len(engine.threads)
    await batcher.encode(lane, batch_of(*([number] for number in range(6))))
    assert engine.in_loop()[before:] == [False, False]
    batcher.close()


async def test_an_engine_on_a_device_of_its_own_never_runs_in_the_event_loop() -> None:
    engine = WhereRun(slots=1)
    engine.info = replace(engine.info, parallel_slots=False)
    lane = lane_of(engine)
    batcher = Batcher([lane], 1, Metrics(), clock=ticking)
    await one_after_another(batcher, lane, STREAK + 3)
    assert not any(engine.in_loop())
    batcher.close()


async def test_several_callers_leave_the_event_loop_free() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    batcher = Batcher([lane], 2, Metrics(), clock=ticking)
    await one_after_another(batcher, lane, STREAK + 2)
    before = len(engine.threads)

    async def caller(number: int) -> None:
        for count in range(20):
            await batcher.encode(lane, batch_of([number, count]))

    await asyncio.gather(*(caller(number) for number in range(4)))
    assert not any(engine.in_loop()[before:])
    batcher.close()


async def test_an_engine_that_fails_in_the_event_loop_fails_its_call_and_no_other() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    batcher = Batcher([lane], 2, Metrics(), clock=ticking)
    await one_after_another(batcher, lane, STREAK + 2)
    with pytest.raises(EngineError, match="a broken engine"):
        await batcher.encode(lane, batch_of([666]))
    assert engine.in_loop()[-1]
    await one_after_another(batcher, lane, 2)
    assert len(lane.waiting) == 0
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
