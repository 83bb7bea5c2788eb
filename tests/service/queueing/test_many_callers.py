"""Many callers at once, who send everything and give up at any time: each gets its own answer or an error."""

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import pytest

from birnn_service.engine.engine import Output
from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.dispatcher import Dispatcher
from tests.service.queueing.sum_engine import SumEngine, batch_of, lane_of


@pytest.mark.parametrize("seed", range(6))
async def test_every_request_of_every_caller_ends_with_its_own_rows_or_an_error(seed: int) -> None:
    numbers = random.Random(seed)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    engine = SumEngine()
    lanes = [lane_of(engine, output, CostModel(1e-5, 1e-6, 1e-6, packed=seed % 2 == 0)) for output in Output]
    dispatcher = Dispatcher(lanes, 2, max_backlog_seconds=0.001)
    ends = {"answered": 0, "refused": 0, "cancelled": 0}

    async def request() -> None:
        lane = numbers.choice(lanes)
        rows = [[numbers.randrange(4) for _ in range(numbers.randint(1, 9))] for _ in range(numbers.choice([1, 3, 30]))]
        deadline = numbers.choice([None, time.monotonic() + 0.002, time.monotonic() + 5])
        try:
            computed = await dispatcher.encode(lane, batch_of(*rows), deadline, caller=f"caller-{numbers.randrange(9)}")
        except (OverloadedError, DeadlineError):
            ends["refused"] += 1
        except asyncio.CancelledError:
            ends["cancelled"] += 1
            raise
        else:
            pooled, tokens = [[sum(row), len(row)] for row in rows], [[one, one**2] for row in rows for one in row]
            assert computed.values.tolist() == (pooled if lane.output is Output.POOLED else tokens)
            ends["answered"] += 1

    tasks: list[asyncio.Task[None]] = []
    for number in range(400):
        tasks.append(asyncio.create_task(request()))
        if number % 7 == 0:
            await asyncio.sleep(0.0005 * numbers.random())
            numbers.choice(tasks).cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    dispatcher.close()
    assert faults == []
    assert all(len(lane.queue) == lane.queue.tokens == 0 for lane in lanes)
    assert ends["answered"] > 0
