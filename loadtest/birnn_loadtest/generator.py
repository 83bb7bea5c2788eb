"""Sends the calls of a schedule and records what becomes of each."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from birnn_loadtest.check import Sample
from birnn_loadtest.recorder import GIVEN_UP, NOT_SENT_FULL, NOT_SENT_LATE, OK, Recorder
from birnn_loadtest.schedule import Call, Mix
from birnn_loadtest.targets.target import CallError, Target
from birnn_loadtest.timer import Timer


class Clock(Protocol):
    """Tells the time and waits for it; tests have one whose time is made up."""

    def now(self) -> float:
        """Seconds since the start of the test."""

    async def wait_until(self, moment: float) -> None:
        """Return at `moment`, not before; let others run in any case. One task waits at a time."""


@dataclass(frozen=True, slots=True)
class MonotonicClock:
    """The clock of real tests.

    Attributes:
        timer: What wakes the generator.
        start: The start of the test by time.monotonic(), which all processes of a machine share.
    """

    timer: Timer
    start: float

    def now(self) -> float:
        """Not the event loop's time: uvloop's stands still within an iteration and has whole milliseconds."""
        return time.monotonic() - self.start

    async def wait_until(self, moment: float) -> None:
        """See `Clock`."""
        await self.timer.wait_until(self.start + moment)


class Generator:
    """Sends calls to a target.

    Args:
        target: Where they go.
        mix: What they carry.
        clock: The time.
        recorder: Where their ends are counted.
        sample: Where some of the replies are kept for a look at their numbers.
        timeout: Deadline of a call, in seconds from when it is sent.
        max_in_flight: Most calls under way at a time in an open loop; those due beyond it are not sent.
    """

    def __init__(
        self,
        target: Target,
        mix: Mix,
        clock: Clock,
        recorder: Recorder,
        sample: Sample,
        timeout: float,
        max_in_flight: int,
    ) -> None:
        self._target = target
        self._mix = mix
        self._clock = clock
        self._recorder = recorder
        self._sample = sample
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._fault: BaseException | None = None

    def stop(self) -> None:
        """Send no more calls; those under way go on to their end."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped

    def give_up(self) -> None:
        """Send no more calls, and cancel those under way."""
        self.stop()
        for task in self._under_way:
            task.cancel()

    async def open_loop(self, calls: Iterator[Call]) -> None:
        """Send each call when it is due, whatever became of the ones before; return when all have ended.

        A call that is due while too many are under way is recorded as NOT_SENT_FULL, and one that comes to be sent
        later than the timeout after it was due as NOT_SENT_LATE. So a test ends at the latest two timeouts after its
        last call.
        """
        for call in calls:
            await self._wait(call.due)
            if self._stopped:
                break
            now = self._clock.now()
            if now - call.due > self._timeout:
                self._not_sent(call, NOT_SENT_LATE, now, "the generator was later than the timeout")
            elif len(self._under_way) >= self._max_in_flight:
                self._not_sent(
                    call, NOT_SENT_FULL, now, f"{self._max_in_flight} calls were under way (--max-in-flight)"
                )
            else:
                task = asyncio.create_task(self._send(call))
                self._under_way.add(task)
                task.add_done_callback(self._ended)
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._raise_fault()

    async def closed_loop(self, calls: Iterator[Call], callers: int, seconds: float) -> None:
        """Let callers send one call after the other, each when its last has ended.

        The latency of a closed loop is no measure of what independent callers see.

        Args:
            calls: Taken by whichever caller is free.
            callers: Number of callers.
            seconds: No call is sent later than this from the start.
        """

        async def caller() -> None:
            while (now := self._clock.now()) < seconds and not self._stopped:
                await self._send(next(calls)._replace(due=now))

        await self._wait(0.0)
        for _ in range(callers):
            task = asyncio.create_task(caller())
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._raise_fault()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        # Each is asked for its exception: asyncio logs those that are not, whenever they are collected.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = self._fault or error

    def _raise_fault(self) -> None:
        """What is no failure of a call is a fault of this program, which no result must hide."""
        if self._fault is not None:
            raise self._fault

    async def _wait(self, moment: float) -> None:
        """Until `moment`, or until it was told to stop."""
        if self._stopped:
            return
        if moment - self._clock.now() <= 1.0:
            await self._clock.wait_until(moment)
            return
        # A long wait must not hold up a stop.
        while moment - self._clock.now() > 1.0 and not self._stopped:
            await self._clock.wait_until(min(moment, self._clock.now() + 1.0))
        await self._clock.wait_until(min(moment, self._clock.now() + 1.0))

    def _not_sent(self, call: Call, code: str, now: float, why: str) -> None:
        self._recorder.record(self._kind(call), call.due, now, now, code, len(call.sequences))
        self._recorder.note(code, why)

    async def _send(self, call: Call) -> None:
        part = self._mix.parts[call.part]
        sent = self._clock.now()
        item_errors = 0
        try:
            reply = await self._target.call(part, call.sequences, self._timeout)
        except CallError as error:
            ended, code = self._clock.now(), error.code
            self._recorder.note(code, error.message)
        except asyncio.CancelledError:
            self._recorder.record(self._kind(call), call.due, sent, self._clock.now(), GIVEN_UP, len(call.sequences))
            raise
        else:
            ended, code, item_errors = self._clock.now(), OK, reply.item_errors
            self._sample.offer(part, call.sequences, reply)
        self._recorder.record(self._kind(call), call.due, sent, ended, code, len(call.sequences), item_errors)

    def _kind(self, call: Call) -> str:
        return f"{self._mix.parts[call.part].encoder} x {len(call.sequences)}"
