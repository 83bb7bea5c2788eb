"""Time that passes only when nothing is left to do: an hour of a load test takes as long as its calls' bookkeeping."""

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from birnn_loadtest.check import Sample
from birnn_loadtest.generator import Generator
from birnn_loadtest.recorder import Recorder, Recording
from birnn_loadtest.schedule import Mix, Part, Schedule
from birnn_loadtest.targets.target import CallError, Reply, Served, Target

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Jumps over the time that the event loop would wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing is left that could happen"
            self.now += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is made up."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


class VirtualClock:
    """The clock of a generator in such a loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait_until(self, moment: float) -> None:
        await asyncio.sleep(0)
        # An event loop may wake early by its resolution.
        while moment > self.now():  # noqa: ASYNC110
            await asyncio.sleep(moment - self.now())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in made-up time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


@dataclass
class Queue(Target):
    """A server that answers one call after the other, first come, first served.

    Attributes:
        service: Seconds that each call takes, in turn, over and over.
        stall: No call is worked on from the first to the second of these moments.
        fail: Every call of so many fails at once; 0 for none.
    """

    service: Sequence[float]
    stall: tuple[float, float] = (0.0, 0.0)
    fail: int = 0
    calls: int = 0
    sent: list[float] = field(default_factory=list)
    _free: float = 0.0

    async def open(self, parts: Sequence[Part]) -> list[Served]:
        return [Served(part.encoder, "1", "a queue") for part in parts]

    async def close(self) -> None:
        pass

    async def server(self) -> str | None:
        return None

    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        now = asyncio.get_running_loop().time()
        self.sent.append(now)
        self.calls += 1
        if self.fail and self.calls % self.fail == 0:
            raise CallError("UNAVAILABLE", "told to fail")
        begin = max(now, self._free)
        if self.stall[0] <= begin < self.stall[1]:
            begin = self.stall[1]
        self._free = begin + self.service[self.calls % len(self.service)]
        if self._free - now > timeout:
            await asyncio.sleep(timeout)
            raise CallError("DEADLINE_EXCEEDED", "too late")
        await asyncio.sleep(self._free - now)
        return Reply(0, lambda: vectors(sequences))


def vectors(sequences: Sequence[bytes]) -> NDArray[np.float32]:
    """Numbers that follow from the sequences."""
    return np.array([[len(sequence), sum(sequence)] for sequence in sequences], dtype=np.float32)


ONE = Mix([Part("smiles", None, 1.0, [b"C"])], [(1, 1.0)])


def recorded(
    schedule: Schedule, target: Target, *, timeout: float = 60.0, max_in_flight: int = 1_000_000, in_flight: int = 0
) -> Recording:
    """What a generator records of a schedule, in made-up time."""

    async def test() -> Recording:
        recorder = Recorder(schedule.warmup, schedule.seconds)
        generator = Generator(target, schedule.mix, VirtualClock(), recorder, Sample(0, 0), timeout, max_in_flight)
        if in_flight:
            await generator.closed_loop(schedule.calls(), in_flight, schedule.warmup + schedule.seconds)
        else:
            await generator.open_loop(schedule.calls())
        return recorder.finished(0.1)

    return run(test())
