"""Health with the shipped encoder and a real engine that can be made to fail, to lie and to hang."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service import health
from birnn_service.catalog import Catalog, Encoders
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.gate import Ceiling, limits_of
from birnn_service.engine.loading import load_engine
from birnn_service.errors import OverloadedError
from birnn_service.health import HealthMonitor
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.cost import CostModel, profile
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.queue_metrics import QueueMetrics
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.state import ServingState
from tests.service.observe.counting import counted

MODELS = Path(__file__).parents[2] / "models"
INTERVAL = 0.02
# How long a state may take to come about. It bounds a test that fails; none is to depend on the machine's speed.
PATIENCE_SECONDS = 60.0


class Moody:
    """A real engine with a mood: well, failing, lying, hanging, or rounding as half precision does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.info = engine.info
        self.mood = "well"
        self.woken = threading.Event()

    def close(self) -> None:
        pass

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        if self.mood == "failing":
            raise RuntimeError("the device fell off the bus")
        if self.mood == "hanging":
            self.woken.wait()
        values = self.engine.run(batch, output)
        if self.mood == "rounding":
            values = values.copy()
            values[:, 0] += np.float32(0.01)
        return values + np.float32(0.01) if self.mood == "lying" else values


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(MODELS / "smiles" / "1")


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Moody]:
    moody = Moody(load_engine(bundle, "cpu").engine)
    yield moody
    moody.woken.set()


class Clock:
    """The clock of health, which can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health, "time", clock)
    return clock


def probes(metrics: Metrics, outcome: str, name: str = "smiles") -> float:
    """How many probes have ended like this."""
    return counted(metrics, "birnn_health_probes_total", encoder=name, outcome=outcome)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(INTERVAL)


def served(bundle: Bundle, engine: Moody, lane: Lane) -> ServedEncoder:
    return ServedEncoder(bundle, engine, {Output.POOLED: lane}, limits_of(bundle, engine, Ceiling()))


async def tell(state: ServingState, turns: "asyncio.Queue[bool]") -> None:
    """Turns of health, one after the other."""
    live = True
    while True:
        change = state.next_change
        if state.live != live:
            live = state.live
            turns.put_nowait(live)
        await change.wait()


@asynccontextmanager
async def watched(
    bundle: Bundle, engine: Moody, metrics: Metrics | None = None, patience: float = 3600.0
) -> AsyncIterator["asyncio.Queue[bool]"]:
    """Turns of health, as they are told."""
    lane = Lane("smiles", engine, Output.POOLED, 512, profile(engine, Output.POOLED, 64))
    encoders = Encoders([served(bundle, engine, lane)], {})
    metrics = metrics or Metrics()
    dispatcher = Dispatcher([lane], 2, observers=[QueueMetrics(metrics)])
    state = ServingState()
    monitor = HealthMonitor(encoders, dispatcher, state, metrics, interval=INTERVAL, patience=patience)
    turns = asyncio.Queue[bool]()
    telling = asyncio.create_task(tell(state, turns))
    watch = asyncio.create_task(monitor.run())
    try:
        yield turns
    finally:
        watch.cancel()
        telling.cancel()
        engine.woken.set()
        dispatcher.close()


@pytest.mark.parametrize("mood", ["failing", "lying", "hanging"])
async def test_an_engine_that_no_longer_works_turns_health_off_and_one_that_recovers_on_again(
    bundle: Bundle, engine: Moody, mood: str
) -> None:
    # Where a slow machine makes a probe of the engine that has recovered late, too, another one follows.
    patience = 0.5 if mood == "hanging" else 3600.0
    async with watched(bundle, engine, patience=patience) as turns, asyncio.timeout(PATIENCE_SECONDS):
        engine.mood = mood
        assert await turns.get() is False
        engine.mood = "well"
        engine.woken.set()
        assert await turns.get() is True


async def test_half_precision_is_held_to_its_own_tolerance(bundle: Bundle, engine: Moody) -> None:
    engine.info = replace(engine.info, precision="bfloat16")
    engine.mood = "rounding"
    metrics = Metrics()
    async with watched(bundle, engine, metrics) as turns:
        await until(lambda: probes(metrics, "passed") >= 3 or not turns.empty())
        assert turns.empty()


async def test_a_working_engine_stays_healthy_through_many_probes(bundle: Bundle, engine: Moody) -> None:
    metrics = Metrics()
    async with watched(bundle, engine, metrics) as turns:
        await until(lambda: probes(metrics, "passed") >= 20 or not turns.empty())
        assert turns.empty()


async def test_probes_are_counted_as_probes_and_not_as_calls(bundle: Bundle, engine: Moody) -> None:
    metrics = Metrics()

    async with watched(bundle, engine, metrics) as turns, asyncio.timeout(PATIENCE_SECONDS):
        engine.mood = "failing"
        assert await turns.get() is False
        assert probes(metrics, "failed") >= 1
        engine.mood = "well"
        assert await turns.get() is True
        assert probes(metrics, "passed") >= 1
    for name in ("sequences_total", "tokens_total", "queue_seconds_count", "batch_sequences_count"):
        assert counted(metrics, f"birnn_{name}", encoder="smiles") == 0
    assert counted(metrics, "birnn_engine_busy_seconds_total", encoder="smiles") > 0


async def keep_busy(dispatcher: Dispatcher, lane: Lane, batch: RaggedBatch) -> None:
    """Call again and again, refused or not, until cancelled."""
    while True:
        with suppress(OverloadedError):
            await dispatcher.encode(lane, batch, caller="a")
        await asyncio.sleep(0.001)


def lane_of(name: str, engine: Moody) -> Lane:
    return Lane(name, engine, Output.POOLED, 512, profile(engine, Output.POOLED, 64))


async def test_an_idle_encoder_beside_a_full_queue_is_refused_as_long_as_the_queue_moves_and_then_bad(
    bundle: Bundle, engine: Moody, clock: Clock
) -> None:
    busy, idle = lane_of("busy", engine), lane_of("idle", engine)
    encoders = Encoders([served(bundle, engine, lane) for lane in (busy, idle)], {})
    metrics = Metrics()
    # Whatever waits fills it.
    dispatcher = Dispatcher([busy, idle], 1, observers=[QueueMetrics(metrics)], max_backlog_seconds=1e-9)
    state = ServingState()
    # A probe that gets a place just before the engine hangs waits so long, and nothing else does.
    monitor = HealthMonitor(encoders, dispatcher, state, metrics, interval=INTERVAL, patience=PATIENCE_SECONDS / 3)
    turns = asyncio.Queue[bool]()
    telling = asyncio.create_task(tell(state, turns))
    callers = [
        asyncio.create_task(keep_busy(dispatcher, busy, bundle.golden.batch.take(np.array([row])))) for row in range(8)
    ]
    watch = asyncio.create_task(monitor.run())

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await until(lambda: probes(metrics, "refused") >= 3 or not turns.empty())
            assert turns.empty()
            engine.mood = "hanging"
            clock.ahead = 3600.0
            assert await turns.get() is False
            await until(lambda: "and nothing runs" in str(state.unhealthy))
            clock.ahead = 0.0
            engine.mood = "well"
            engine.woken.set()
            assert await turns.get() is True
    finally:
        for task in (watch, telling, *callers):
            task.cancel()
        engine.woken.set()
        dispatcher.close()


async def test_a_loop_that_an_engine_holds_up_is_seen_from_another_thread(
    bundle: Bundle, engine: Moody, clock: Clock
) -> None:
    lane = Lane("smiles", engine, Output.POOLED, 512, profile(engine, Output.POOLED, 64))
    encoders = Encoders([served(bundle, engine, lane)], {})
    metrics = Metrics()
    dispatcher = Dispatcher([lane], 2, observers=[QueueMetrics(metrics)])
    monitor = HealthMonitor(encoders, dispatcher, ServingState(), metrics, interval=INTERVAL, patience=600.0)
    watch = asyncio.create_task(monitor.run())
    await until(lambda: probes(metrics, "passed"))
    assert monitor.awake
    # As if this line took an hour.
    clock.ahead = 3600.0
    seen: list[bool] = []
    other = threading.Thread(target=lambda: seen.append(monitor.awake))
    other.start()
    other.join()
    assert seen == [False]
    await until(lambda: monitor.awake)
    watch.cancel()
    dispatcher.close()


async def test_a_busy_encoder_whose_numbers_go_wrong_is_found_out_and_stays_bad_until_they_are_right(
    bundle: Bundle, engine: Moody
) -> None:
    # As cheap as an encoder of a microsecond, so that probes come soon.
    lane = Lane("smiles", engine, Output.POOLED, 512, CostModel(1e-7, 0.0, 1e-9))
    encoder = served(bundle, engine, lane)
    metrics = Metrics()
    dispatcher = Dispatcher([lane], 2)
    state = ServingState()
    monitor = HealthMonitor(Encoders([encoder], {}), dispatcher, state, metrics, interval=INTERVAL, patience=3600.0)
    turns = asyncio.Queue[bool]()
    telling = asyncio.create_task(tell(state, turns))
    row = bundle.golden.batch.take(np.array([3]))
    callers = [asyncio.create_task(keep_busy(dispatcher, lane, row)) for _ in range(4)]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await until(lambda: encoder.last_success > 0)
            watch = asyncio.create_task(monitor.run())
            callers += [watch, telling]
            await until(lambda: probes(metrics, "passed") >= 3 or not turns.empty())
            assert turns.empty()
            engine.mood = "lying"
            assert await turns.get() is False
            # Batches go on to succeed, and prove nothing.
            before = encoder.last_success
            await until(lambda: encoder.last_success > before + 5 * INTERVAL)
            assert turns.empty()
            engine.mood = "well"
            assert await turns.get() is True
    finally:
        for task in callers:
            task.cancel()
        dispatcher.close()


class Busy(ServedEncoder):
    """One whose last batch has just succeeded, whenever somebody asks."""

    @property
    def last_success(self) -> float:
        return time.monotonic() + 3600.0


async def test_a_busy_encoder_is_probed_only_where_that_costs_a_thousandth_of_its_time(
    bundle: Bundle, engine: Moody
) -> None:
    """Two busy encoders on one engine, one of them said to take minutes a batch: that one may be probed in hours."""
    encoders, lanes = [], []
    for name, cost in (("cheap", 1e-7), ("dear", 100.0)):
        lane = Lane(name, engine, Output.POOLED, 512, CostModel(cost, 0.0, 1e-9))
        named = replace(bundle, manifest=bundle.manifest.model_copy(update={"name": name}))
        encoders.append(Busy(named, engine, {Output.POOLED: lane}, limits_of(named, engine, Ceiling())))
        lanes.append(lane)
    metrics = Metrics()
    dispatcher = Dispatcher(lanes, 2, max_backlog_seconds=1e9)
    monitor = HealthMonitor(
        Encoders(encoders, {}), dispatcher, ServingState(), metrics, interval=INTERVAL, patience=3600.0
    )
    watch = asyncio.create_task(monitor.run())
    try:
        await until(lambda: probes(metrics, "passed", "cheap") >= 3)
        assert probes(metrics, "passed", "dear") == 0
    finally:
        watch.cancel()
        dispatcher.close()


async def test_an_encoder_that_is_unloaded_while_another_proves_itself_is_not_asked(
    bundle: Bundle, engine: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lane() -> Lane:
        return Lane("smiles", engine, Output.POOLED, 512, profile(engine, Output.POOLED, 64))

    first = served(bundle, engine, lane())
    second = served(replace(bundle, manifest=bundle.manifest.model_copy(update={"version": 2})), engine, lane())
    encoders, metrics = Catalog([first, second]), Metrics()
    lanes = [encoder.lanes[Output.POOLED] for encoder in (first, second)]
    dispatcher = Dispatcher(lanes, 2)
    loop, run = asyncio.get_running_loop(), engine.engine.run
    removed: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    runs, often = itertools.count(1), asyncio.Event()

    def unload() -> None:
        if not removed.done():
            encoders.take_out(second)
            removed.set_result(loop.create_task(dispatcher.remove(lanes[1:])))

    def unload_meanwhile(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(unload)
        if next(runs) == 4:
            loop.call_soon_threadsafe(often.set)
        return run(*arguments)

    monkeypatch.setattr(engine.engine, "run", unload_meanwhile)
    monitor = HealthMonitor(encoders, dispatcher, ServingState(), metrics, interval=INTERVAL, patience=3600.0)
    watch = asyncio.create_task(monitor.run())
    await (await removed)
    await often.wait()
    assert probes(metrics, "passed") > 0
    assert probes(metrics, "failed") == 0
    watch.cancel()
    dispatcher.close()
