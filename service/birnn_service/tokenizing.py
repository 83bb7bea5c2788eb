"""Tokenizes requests in slices, on threads of its own, with admission control and small requests first.

Tokenizing 63 MB of text takes half a minute. So the work that waits here is bounded in predicted seconds, like the work
that waits to be computed. A request is tokenized in slices of about 10 ms. Between two slices other requests get their
turn, and the request ends if its deadline has passed or its caller has gone.
"""

import asyncio
import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.tokenizer import Tokenized
from birnn_service.engine.cores import available_cores, yield_to_event_loop
from birnn_service.errors import DeadlineError, ExpiredError, OverloadedError, Reason
from birnn_service.joint_reading import JointReading
from birnn_service.queueing.admission import LEAST_RETRY
from birnn_service.reading import Strings
from birnn_service.tokenizing_rate import LEAST_BYTES, Rate

# Longest request that is tokenized on the event loop, in predicted seconds. Switching threads would cost more.
INLINE_SECONDS = 1e-3
# Predicted seconds of a slice. A slice holds at least one sequence, however long.
SLICE_SECONDS = 1e-2
# Fixed cost of a sequence, expressed in bytes.
SEQUENCE_BYTES = 64
# A request's rank is the time at which it would be done if it took this many times its predicted time.
PATIENCE = 8.0
# Longest small request, in predicted seconds. Small requests overtake large ones, even overdue ones. After
# `SMALL_TURNS` slices of small requests in a row, a large one gets a slice.
SMALL_SECONDS = 10 * SLICE_SECONDS
SMALL_TURNS = 4
# Callers with less than this share of the bound waiting are refused only because of work that runs before theirs.
SMALL_SHARE = 0.01
# A deadline counts as missed if less than this share of the predicted time is left.
LEAST_TIME = 0.5
# Encoders whose rates are remembered.
MOST_RATES = 4096

Read = Callable[[int, int], Tokenized]
"""Tokenizes the sequences of a request from one position to another; rows are counted from the first of them."""


@dataclass(slots=True, eq=False)
class _Job:
    """One request: the cumulative sizes of its sequences [n + 1], and the slices that have been tokenized."""

    read: Read
    ends: NDArray[np.int64]
    rate: Rate
    caller: object
    deadline: float | None
    is_small: bool = False
    rank: float = 0.0
    position: int = 0
    slices: list[Tokenized] = field(default_factory=list)
    result: Tokenized | None = None

    @property
    def seconds(self) -> float:
        """Predicted seconds of the rest."""
        return self.rate.seconds * int(self.ends[-1] - self.ends[self.position])

    @property
    def is_done(self) -> bool:
        return self.position == len(self.ends) - 1

    def next_end(self) -> int:
        """End of the next slice, at least one sequence further."""
        size = SLICE_SECONDS / self.rate.seconds
        end = int(np.searchsorted(self.ends, self.ends[self.position] + size, side="right")) - 1
        return min(max(end, self.position + 1), len(self.ends) - 1)

    def run(self, end: int) -> float:
        """Tokenize up to `end`, and join all slices after the last one. Returns the seconds of this slice."""
        start = time.perf_counter()
        self.slices.append(self.read(self.position, end))
        seconds = time.perf_counter() - start
        if end == len(self.ends) - 1:
            self.result = Tokenized.concatenate(self.slices)
        return seconds

    def advance(self, end: int, seconds: float) -> None:
        """Note that a slice has been tokenized."""
        self.rate.learn(int(self.ends[end] - self.ends[self.position]), seconds)
        self.position = end


class Tokenizing:
    """Tokenizes requests of many callers, on as many threads as there are cores.

    It lives on the event loop. A request is on one thread at a time. Small requests get four of five turns, and in each
    group the request with the lowest rank is next. A rank is a point in time, so no request starves: it is when all
    requests of the same caller and group would be done if they took eight times as long as predicted. So small requests
    overtake large ones, and callers with little work overtake callers with much.
    """

    def __init__(
        self,
        max_backlog_seconds: float,
        *,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the threads.

        Args:
            max_backlog_seconds: Predicted seconds of work that may wait; more is refused.
            workers: Threads; by default one a core.
            clock: Seconds since some point in time; deadlines are on it.
        """
        # The library's own threads would neither be bounded by ours nor let the event loop go first.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._max_backlog_seconds = max_backlog_seconds
        self._clock = clock
        self._workers = workers or available_cores()
        self._idle = self._workers
        self._rates: dict[str, Rate] = {}
        self._joint = JointReading()
        self._jobs: set[_Job] = set()
        self._numbers = itertools.count()
        # Requests that wait for a thread: rank, number, and the future that gives them one.
        self._small: list[tuple[float, int, asyncio.Future[None]]] = []
        self._large: list[tuple[float, int, asyncio.Future[None]]] = []
        self._small_in_a_row = 0
        self._threads = ThreadPoolExecutor(
            self._workers, thread_name_prefix="birnn-tokenize", initializer=yield_to_event_loop
        )
        # Start all threads now: later the system may refuse one.
        started = threading.Barrier(self._workers)
        for thread in [self._threads.submit(started.wait) for _ in range(self._workers)]:
            thread.result()

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until all present requests have been tokenized."""
        return sum(job.seconds for job in self._jobs) / self._workers

    async def run(
        self,
        encoder: str,
        sizes: Sequence[int],
        read: Read,
        *,
        deadline: float | None = None,
        caller: str | None = None,
        joint: Strings | None = None,
    ) -> Tokenized:
        """Tokenize a request. Cancelling takes effect after the current slice.

        Args:
            encoder: For which encoder; how long a byte takes is measured for each.
            sizes: Bytes of each sequence [n], at least one.
            read: Tokenizes some of the sequences, on any thread.
            deadline: When the caller gives up, on the stage's clock.
            caller: Whose request it is; callers share the threads evenly. None for a caller of its own.
            joint: The same sequences, to be read together with those of other small requests that arrive now.

        Raises:
            OverloadedError: More work waits than the bound allows, or than can be done before the deadline. For a
                small request only the work ahead of it counts.
            DeadlineError: The deadline has passed, or cannot be met even if nothing else waited.
        """
        rate = self._rates.get(encoder)
        if rate is None:
            rate = self._rates[encoder] = Rate()
            if len(self._rates) > MOST_RATES:
                # Of the encoder that came first; it may be gone, and learns anew if it is not.
                del self._rates[next(iter(self._rates))]
        size = sum(sizes) + SEQUENCE_BYTES * len(sizes)
        if rate.seconds * size <= INLINE_SECONDS:
            # Longer ones gain nothing in company, and teach how long a byte takes.
            if joint is not None and size < LEAST_BYTES:
                return await self._joint.read(joint)
            start = time.perf_counter()
            tokenized = read(0, len(sizes))
            rate.learn(size, time.perf_counter() - start)
            return tokenized
        ends = np.zeros(len(sizes) + 1, dtype=np.int64)
        np.cumsum(np.asarray(sizes, dtype=np.int64) + SEQUENCE_BYTES, out=ends[1:])
        job = _Job(read, ends, rate, object() if caller is None else caller, deadline)
        job.is_small = job.seconds <= SMALL_SECONDS
        self._admit(job)
        self._jobs.add(job)
        try:
            await self._run(job)
        finally:
            self._jobs.discard(job)
        assert job.result is not None
        return job.result

    def close(self) -> None:
        """End the threads after their current slices."""
        self._threads.shutdown()

    def _admit(self, job: _Job) -> None:
        """Rank a request, or refuse it."""
        now, alone, bound = self._clock(), job.seconds, self._max_backlog_seconds
        flow = (job.caller, job.is_small)
        of_caller = alone + sum(other.seconds for other in self._jobs if (other.caller, other.is_small) == flow)
        job.rank = now + PATIENCE * of_caller
        ahead = self._ahead_of(job)
        # A small request overtakes the large ones, so these are no reason to refuse it.
        backlog = ahead if of_caller <= SMALL_SHARE * bound else self.backlog_seconds
        if backlog > bound:
            raise OverloadedError(
                f"about {backlog:.1f} s of tokenizing wait already, the limit is {bound:g} s (--max-backlog-seconds); "
                "retry later, or add a replica",
                max(LEAST_RETRY, backlog - bound / 2),
                Reason.QUEUE,
            )
        if job.deadline is not None:
            self._check_deadline(job, ahead, job.deadline - now)

    def _ahead_of(self, job: _Job) -> float:
        """Predicted seconds until it is the turn of a request, which has its rank."""
        small = sum(other.seconds for other in self._jobs if other.is_small and other.rank <= job.rank)
        large = sum(
            other.seconds for other in self._jobs if not other.is_small and (job.is_small or other.rank <= job.rank)
        )
        return (small + (min(large, small / SMALL_TURNS) if job.is_small else large)) / self._workers

    def _check_deadline(self, job: _Job, ahead: float, left: float) -> None:
        """Refuse what will not be tokenized in the `left` seconds."""
        alone = job.seconds
        if LEAST_TIME * (ahead + alone) <= left:
            return
        job.rate.doubt()
        if LEAST_TIME * alone > left:
            raise DeadlineError(
                f"tokenizing {len(job.ends) - 1} sequences takes about {alone:.3g} s and {max(0.0, left):.3g} s are "
                "left; send fewer in a call, or allow more time"
            )
        raise OverloadedError(
            f"about {ahead:.3g} s of tokenizing are ahead of this request and {max(0.0, left):.3g} s are left "
            "until its deadline; retry later, allow more time, or add a replica",
            max(LEAST_RETRY, LEAST_TIME * (ahead + alone) - left),
            Reason.DEADLINE,
        )

    async def _run(self, job: _Job) -> None:
        """Tokenize an admitted request, slice by slice."""
        await self._turn(job)
        while True:
            if job.deadline is not None and self._clock() >= job.deadline:
                self._release()
                raise ExpiredError("the deadline passed while the request was tokenized; send fewer in a call")
            await self._slice(job)
            self._small_in_a_row = self._small_in_a_row + 1 if job.is_small else 0
            if job.is_done:
                self._release()
                return
            if self._others_are_due(job):
                self._release()
                await self._turn(job)

    def _next(self) -> list[tuple[float, int, "asyncio.Future[None]"]]:
        """The queue of which the next request is taken; empty if no request waits."""
        if self._small and (not self._large or self._small_in_a_row < SMALL_TURNS):
            return self._small
        return self._large

    def _others_are_due(self, job: _Job) -> bool:
        """Whether a request must wait for others after a slice."""
        waiting = self._next()
        if not waiting:
            return False
        return (waiting is self._small) != job.is_small or waiting[0][0] < job.rank

    async def _turn(self, job: _Job) -> None:
        """Wait for a thread."""
        if self._idle:
            self._idle -= 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._small if job.is_small else self._large
        entry = (job.rank, next(self._numbers), future)
        heapq.heappush(waiting, entry)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                with suppress(ValueError):
                    waiting.remove(entry)
                    heapq.heapify(waiting)
            else:  # the request got a thread in the same iteration of the event loop
                self._release()
            raise

    def _release(self) -> None:
        """Give the thread to the next waiting request."""
        while waiting := self._next():
            _, _, future = heapq.heappop(waiting)
            if not future.cancelled():
                future.set_result(None)
                return
        self._idle += 1

    async def _slice(self, job: _Job) -> None:
        """Tokenize the next slice. The thread stays occupied until the slice ends, even if the request is cancelled."""
        end = job.next_end()
        running = self._threads.submit(job.run, end)
        try:
            job.advance(end, await asyncio.wrap_future(running))
        except BaseException:
            running.add_done_callback(partial(self._release_soon, asyncio.get_running_loop()))
            raise

    def _release_soon(self, loop: asyncio.AbstractEventLoop, running: "Future[float]") -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._release)
