"""What one tenant has queued and whose batch runs next, in the real dispatcher."""

import asyncio

import pytest

from birnn_service.errors import OverloadedError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.queue_metrics import QueueMetrics
from tests.service.queueing.sum_engine import SumEngine, batch_of, begun, lane_of

Weights = dict[str, float]


class Full:
    """A dispatcher of one slot with much of a greedy tenant in it, none of which runs yet but one batch."""

    def __init__(self, sizes: list[int], weights: Weights | None = None) -> None:
        given = weights or {}
        self.engine, self.metrics = SumEngine(slots=1), Metrics()
        self.lane = lane_of(self.engine)
        self.dispatcher = Dispatcher(
            [self.lane],
            1,
            observers=[QueueMetrics(self.metrics)],
            weight_of=lambda caller: given.get(caller, 1.0),
        )
        self.engine.gate.clear()
        self._sizes = sizes
        self._tasks: list[asyncio.Task[object]] = []

    def send(self, caller: str, *rows: list[int]) -> "asyncio.Task[object]":
        task: asyncio.Task[object] = asyncio.create_task(
            self.dispatcher.encode(self.lane, batch_of(*rows), caller=caller)
        )
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> "Full":
        for number, size in enumerate(self._sizes):
            self.send("name:greedy", *([1000 + number, row] for row in range(size)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.engine.gate.set()
        await asyncio.gather(*self._tasks)
        self.dispatcher.close()


@pytest.mark.parametrize("sizes", [[1] * 2000, [8] * 250, [500] * 4, [1, 500] * 4])
@pytest.mark.parametrize("weights", [{}, {"name:greedy": 4.0}, {"name:small": 4.0}, {"name:greedy": 16.0}])
async def test_a_small_call_is_in_one_of_the_next_batches_whatever_a_greedy_tenant_has_queued(
    sizes: list[int], weights: Weights
) -> None:
    async with Full(sizes, weights) as full:
        calls = [full.send("name:small", [number]) for number in range(3)]
        await asyncio.sleep(0)
        full.engine.gate.set()
        await asyncio.gather(*calls)
        places = [
            place for place, batch in enumerate(full.engine.batches) if any(row in ([0], [1], [2]) for row in batch)
        ]
        # The batch that runs, and a batch by which the greedy one may be ahead.
        assert max(places) <= 2
        assert sum(map(len, full.engine.batches)) < sum(sizes)


async def test_each_is_charged_for_its_own_rows_of_a_batch() -> None:
    async with Full([4]) as full:
        full.send("name:small", [1, 2])
        full.send("ipv4:192.0.2.1", [3, 4, 5])
    get = full.metrics.registry.get_sample_value
    charged = [get("birnn_tenant_engine_seconds_total", {"tenant": tenant}) for tenant in ("greedy", "small")]
    assert all(charged)
    compute = get("birnn_compute_seconds_sum", {"encoder": "sum", "version": "7"})
    assert compute is not None
    assert sum(seconds or 0 for seconds in charged) < compute


async def test_a_full_backlog_refuses_who_fills_it_and_nobody_else() -> None:
    engine = SumEngine(slots=1)
    lane = lane_of(engine)
    dispatcher = Dispatcher([lane], 1, max_backlog_seconds=0.005, weight_of=lambda caller: 1.0)
    engine.gate.clear()
    tasks = [
        asyncio.create_task(dispatcher.encode(lane, batch_of([number, 1, 2, 3]), caller="name:greedy"))
        for number in range(200)
    ]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done() and isinstance(task.exception(), OverloadedError)]
    assert refused
    small = await begun(dispatcher.encode(lane, batch_of([5]), caller="name:small"))
    engine.gate.set()
    assert (await small).values.tolist() == [[5, 1]]
    await asyncio.gather(*tasks, return_exceptions=True)
    dispatcher.close()
