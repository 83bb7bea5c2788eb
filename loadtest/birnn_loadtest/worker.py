"""A generator process: connects once, runs the steps that it is told to, and gives back what it saw."""

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

from birnn import EncodeError
from birnn.cli.server_options import Server
from birnn_loadtest.arrivals import Process, Trace
from birnn_loadtest.check import Check, Sample
from birnn_loadtest.generator import Generator, MonotonicClock
from birnn_loadtest.recorder import Recorder, Recording
from birnn_loadtest.schedule import Mix, Schedule
from birnn_loadtest.targets import open_target
from birnn_loadtest.targets.target import Served, Target, TensorNames
from birnn_loadtest.timer import Timer


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change between steps.

    Attributes:
        server: Which server is called, and how.
        protocol: One of `PROTOCOLS`.
        names: Names of the tensors, for Open Inference.
        mix: What calls carry.
        connections: Connections of each process; None for the protocol's default.
        timeout: Deadline of a call, in seconds from when it is sent.
        max_in_flight: Most calls under way at a time in an open loop, over all processes.
        in_flight: Callers in a closed loop, over all processes; None for an open loop.
        check: Replies of a step to compare, over all processes.
        tolerance: See `Sample.check`.
        processes: Number of processes.
    """

    server: Server
    protocol: str
    names: TensorNames
    mix: Mix
    connections: int | None
    timeout: float
    max_in_flight: int
    in_flight: int | None
    check: int
    tolerance: float
    processes: int

    def share(self, total: int, number: int) -> int:
        """What process `number` has of a total."""
        return total // self.processes + (number < total % self.processes)


@dataclass(frozen=True, slots=True)
class Order:
    """A step to run.

    Attributes:
        arrivals: When calls are due; None in a closed loop.
        warmup: Seconds before what is measured.
        seconds: Seconds measured.
        seed: Decides the calls.
        start: When it begins, by time.monotonic().
        sample: Whether to keep some replies, to compare them later.
    """

    arrivals: Process | Trace | None
    warmup: float
    seconds: float
    seed: int
    start: float
    sample: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The process is connected.

    Attributes:
        served: The encoders.
        server: Name and version of the server; None where it does not say.
        event_loop: Module of the event loop.
        precise_timer: See `Timer`.
    """

    served: list[Served]
    server: str | None
    event_loop: str
    precise_timer: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The process cannot go on; says why."""

    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A step has run."""

    recording: Recording


@dataclass(frozen=True, slots=True)
class Checked:
    """The replies that were kept have been compared."""

    check: Check


# To a process: a step, or "check" (compare what the last one kept), "stop" (send no more), "give up" (and do not wait),
# "close".
Told: TypeAlias = Order | str
Said: TypeAlias = Opened | Failed | Finished | Checked


def work(connection: Connection, plan: Plan, number: int) -> None:
    """The whole life of process `number`."""
    # The terminal sends it to all processes at once, and the first decides what becomes of the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError), asyncio.Runner(loop_factory=uvloop_factory()) as runner:
        runner.run(_Worker(connection, plan, number).live())


def uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: it spends less time on each call."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Worker:
    def __init__(self, connection: Connection, plan: Plan, number: int) -> None:
        self._connection = connection
        self._plan = plan
        self._number = number
        self._generator: Generator | None = None
        self._sample = Sample(0, 0)
        self._orders: asyncio.Queue[Told] = asyncio.Queue()

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), self._hear)
        plan = self._plan
        target = open_target(plan.protocol, plan.server, plan.connections, plan.timeout, plan.names)
        try:
            with Timer() as timer:
                served = await target.open(plan.mix.parts)
                module = type(loop).__module__.partition(".")[0]
                self._connection.send(Opened(served, await target.server(), module, timer.precise))
                # What is there now stays: collecting it again and again would hold up calls.
                gc.collect()
                gc.freeze()
                while (order := await self._orders.get()) != "close":
                    if isinstance(order, Order):
                        self._connection.send(Finished(await self._run(order, target, timer)))
                    else:
                        check = await self._sample.check(target, plan.timeout, plan.tolerance)
                        self._connection.send(Checked(check))
        except EncodeError as error:
            self._connection.send(Failed(str(error)))
        finally:
            loop.remove_reader(self._connection.fileno())
            await target.close()

    def _hear(self) -> None:
        try:
            told: Told = self._connection.recv()
        except EOFError:
            # The first process is gone.
            told = "give up"
            self._orders.put_nowait("close")
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
        if isinstance(told, Order) or told in ("check", "close"):
            self._orders.put_nowait(told)
        elif self._generator is not None:
            self._generator.stop() if told == "stop" else self._generator.give_up()

    async def _run(self, order: Order, target: Target, timer: Timer) -> Recording:
        plan, number = self._plan, self._number
        recorder = Recorder(order.warmup, order.seconds)
        self._sample = Sample(plan.share(plan.check, number) if order.sample else 0, order.seed)
        generator = self._generator = Generator(
            target,
            plan.mix,
            MonotonicClock(timer, order.start),
            recorder,
            self._sample,
            plan.timeout,
            plan.share(plan.max_in_flight, number),
        )
        calls = Schedule(order.arrivals, plan.mix, order.warmup, order.seconds, order.seed).calls(
            number, plan.processes
        )
        wall, cpu = time.monotonic(), time.process_time()
        if plan.in_flight is None:
            await generator.open_loop(calls)
        else:
            await generator.closed_loop(calls, plan.share(plan.in_flight, number), order.warmup + order.seconds)
        share = (time.process_time() - cpu) / max(time.monotonic() - wall, 1e-9)
        self._generator = None
        return recorder.finished(share, generator.stopped)
