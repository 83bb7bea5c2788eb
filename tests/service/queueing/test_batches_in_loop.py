"""Batches that the event loop runs itself, for a lone caller."""

import asyncio
import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import Output
from birnn_service.errors import EngineError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.placement import STREAK, TURNAROUND
from birnn_service.queueing.queue_metrics import QueueMetrics
from tests.service.queueing.sum_engine import COST, SumEngine, batch_of, lane_of

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


async def one_after_another(dispatcher: Dispatcher, lane: Lane, count: int) -> None:
    for number in range(count):
        assert (await dispatcher.encode(lane, batch_of([number, 1]), caller="a")).values.tolist() == [[number + 1, 2]]


async def test_the_event_loop_runs_the_short_batches_of_a_lone_caller_itself() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    metrics = Metrics()
    dispatcher = Dispatcher([lane], 2, observers=[QueueMetrics(metrics)], clock=ticking)
    await one_after_another(dispatcher, lane, STREAK + 5)
    assert engine.in_loop() == [False] * STREAK + [True] * 5
    assert metrics.registry.get_sample_value("birnn_sequences_total", {"encoder": "sum", "version": "7"}) == STREAK + 5
    dispatcher.close()


async def test_batches_side_by_side_of_a_lone_caller_run_on_their_slots() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 2, clock=ticking)
    await one_after_another(dispatcher, lane, STREAK + 2)
    before = len(engine.threads)
    await dispatcher.encode(lane, batch_of(*([number] for number in range(6))), caller="a")
    assert engine.in_loop()[before:] == [False, False]
    dispatcher.close()


@pytest.mark.parametrize(
    ("slots", "on_cores", "cost"),
    [(2, True, CostModel(1.0, 0.0, 0.0)), (1, False, COST)],
    ids=["a-long-batch", "an-engine-on-a-device-of-its-own"],
)
async def test_what_would_keep_the_event_loop_from_others_runs_on_its_slot(
    slots: int, on_cores: bool, cost: CostModel
) -> None:
    engine = WhereRun(slots)
    engine.info = replace(engine.info, parallel_slots=on_cores)
    lane = lane_of(engine, cost=cost)
    dispatcher = Dispatcher([lane], slots, clock=ticking)
    await one_after_another(dispatcher, lane, STREAK + 3)
    assert not any(engine.in_loop())
    dispatcher.close()


async def test_several_callers_leave_the_event_loop_free() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 2, clock=ticking)
    await one_after_another(dispatcher, lane, STREAK + 2)
    before = len(engine.threads)

    async def caller(number: int) -> None:
        for count in range(20):
            await dispatcher.encode(lane, batch_of([number, count]), caller="a")

    await asyncio.gather(*(caller(number) for number in range(4)))
    assert not any(engine.in_loop()[before:])
    dispatcher.close()


async def test_an_engine_that_fails_in_the_event_loop_fails_its_call_and_no_other() -> None:
    engine = WhereRun()
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 2, clock=ticking)
    await one_after_another(dispatcher, lane, STREAK + 2)
    with pytest.raises(EngineError, match="RuntimeError"):
        await dispatcher.encode(lane, batch_of([666]), caller="a")
    assert engine.in_loop()[-1]
    await one_after_another(dispatcher, lane, 2)
    assert len(lane.queue) == 0
    dispatcher.close()
