"""The batcher: one owner of everything that waits, which keeps every slot of the device busy.

It lives on the event loop and is never shared between threads; only `Engine.run` leaves for a worker thread, one a
slot. It is work-conserving: an idle slot takes what is there at the end of the loop's iteration, so that calls that
came together run together, and nobody waits for a timer. Under load batches grow by themselves, because more waits
when a slot gets free.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.cores import available_cores
from birnn_service.engine.engine import Output
from birnn_service.errors import DeadlineError, EngineError, ServiceError, UnavailableError
from birnn_service.metrics import Metrics
from birnn_service.queueing.lane import Lane, Waiting
from birnn_service.queueing.lone_caller import LoneCaller
from birnn_service.queueing.loop_share import LoopShare
from birnn_service.queueing.scheduler import Scheduler, Selection
from birnn_service.queueing.slots import Slots, outcome_of
from birnn_service.queueing.work import Computed, InFlight, Values, Work

logger = logging.getLogger(__name__)

# Batches of at most so many predicted seconds the event loop may run itself, for a lone caller.
SHORT = 1e-3

# Some rows of one work: those at these positions in its batch run together.
Part = tuple[Work, NDArray[np.int64]]


class Batcher:
    """Runs requests of many callers on the slots of one device, batched."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        metrics: Metrics,
        *,
        max_backlog_seconds: float = 30.0,
        cores: int | None = None,
        loop_share: LoopShare | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `lanes` on one device.

        Args:
            lanes: Every output of every encoder on the device.
            slots: Batches that run at the same time.
            metrics: Where to count.
            max_backlog_seconds: Predicted seconds of work that may wait; more is refused.
            cores: Processor cores that slots and event loop share; those of this process by default.
            loop_share: How much of a core the event loop needs.
            clock: Seconds since some point in time; deadlines are on it.
        """
        self._scheduler = Scheduler(lanes, slots, max_backlog_seconds)
        self._idle = slots
        self._loop_share = loop_share or LoopShare()
        self._on_cores = all(lane.engine.info.parallel_slots for lane in lanes)
        self._shares_cores = self._on_cores and slots > 1 and slots >= (cores or available_cores())
        self._lone_caller = LoneCaller()
        self._dispatch_is_due = False
        self._metrics = metrics
        self._clock = clock
        self._in_flight = {lane: InFlight(lane.engine.info.max_rows) for lane in lanes if lane.output is Output.POOLED}
        self._works: set[Work] = set()
        # What the scheduler knows by number: rows of a work.
        self._submissions: dict[int, Part] = {}
        self._numbers = itertools.count()
        self._slots = Slots(slots, yielding=self._on_cores)
        self._closed = False
        self._show_queue()

    async def encode(
        self, lane: Lane, batch: RaggedBatch, deadline: float | None = None, *, is_probe: bool = False
    ) -> Computed:
        """Encode a batch of at least one sequence, none of them empty; cancelling takes it out of the queue.

        Pooled encodings of sequences that are in flight already, for whomever, are not computed again.

        Args:
            lane: Which output of which encoder.
            batch: The sequences of one request.
            deadline: When the caller gives up, on the batcher's clock.
            is_probe: Whether health asks: what metrics tell of calls does not count it.

        Raises:
            OverloadedError: More work waits than the bound allows.
            DeadlineError: The deadline cannot be met.
            EngineError: The engine failed on one of the request's batches.
            UnavailableError: The batcher was closed.
        """
        if self._closed:
            raise UnavailableError("the server is shutting down; retry with another one")
        future: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        work = Work(lane, batch, self._clock(), deadline, future, missing=len(batch), is_probe=is_probe)
        self._lone_caller.arrived(bool(self._works), work.queued)
        self._works.add(work)
        try:
            self._submit(work, self._join(work))
            self._dispatch_soon()
            return await future
        finally:
            self._works.discard(work)
            future.cancel()
            if work.missing:
                self._withdraw(work)
            for number in work.submissions:
                self._submissions.pop(number, None)

    def close(self) -> None:
        """Fail what waits, let running batches end, and stop the worker threads."""
        self._closed = True
        for work in self._works:
            work.fail(UnavailableError("the server is shutting down; retry with another one"))
        self._slots.close()

    def _join(self, work: Work) -> NDArray[np.int64]:
        """Rows of a new work that have to be computed; the others are in flight already."""
        rows = np.arange(len(work.batch))
        in_flight = self._in_flight.get(work.lane)
        if in_flight is None:
            return rows
        work.keys = work.batch.keys()
        computed = in_flight.join(work)
        if len(computed) == len(rows):
            return rows
        if not work.is_probe:
            self._metrics.of(work.lane.encoder).shared_sequences.inc(len(rows) - len(computed))
        return np.array(computed, dtype=np.int64)

    def _submit(self, work: Work, rows: NDArray[np.int64]) -> None:
        """Queue rows of a work."""
        if len(rows) == 0:
            return
        number = next(self._numbers)
        lengths = work.batch.lengths if len(rows) == len(work.batch) else work.batch.lengths[rows]
        self._scheduler.add(work.lane, number, lengths, work.deadline, self._clock())
        self._submissions[number] = (work, rows)
        work.submissions.append(number)

    def _withdraw(self, work: Work) -> None:
        """Take out of the queue what still waits of a work that has ended early."""
        if work.submissions:
            self._scheduler.remove(work.lane, work.submissions)
        self._abandon(work, np.flatnonzero(~work.launched).tolist())

    def _abandon(self, work: Work, rows: list[int]) -> None:
        """Rows of a work will not be computed: those who waited for them have to see to it themselves."""
        in_flight = self._in_flight.get(work.lane)
        if in_flight is None or self._closed:
            return
        for _, orphan, row in in_flight.leave(work, rows):
            if orphan.future.done() or not in_flight.lead(orphan, row):
                continue
            try:
                self._submit(orphan, np.array([row]))
            except ServiceError as error:
                orphan.fail(error)
        self._dispatch()

    def _dispatch_soon(self) -> None:
        """Dispatch at the end of this iteration of the event loop, if a slot is idle."""
        if self._idle and not self._dispatch_is_due:
            self._dispatch_is_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Fill the idle slots with what waits."""
        self._dispatch_is_due = False
        if self._closed:
            return
        idle = self._idle - self._kept
        selections = self._scheduler.fill(idle, self._clock())
        here = len(selections) == 1 and self._may_run_here(selections[0])
        for selection in selections:
            for number in selection.late:
                work, _ = self._submissions[number]
                work.fail(DeadlineError("the deadline passed, or would before the computation ends"))
            if len(selection.rows):
                self._launch(selection.lane, self._parts(selection.rows), selection.slots, here)

    @property
    def _kept(self) -> int:
        """Slots that stay idle, because the event loop needs their core."""
        return int(self._shares_cores and self._loop_share.has_a_core)

    def _parts(self, taken: Waiting) -> list[Part]:
        """The rows of a batch by work."""
        if len(taken) == 1:
            work, rows = self._submissions[int(taken.work[0])]
            return [(work, rows[taken.row])]
        order = np.argsort(taken.work, kind="stable")
        numbers, positions = taken.work[order], taken.row[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        parts = []
        for start, end in itertools.pairwise([*starts, len(numbers)]):
            work, rows = self._submissions[int(numbers[start])]
            parts.append((work, rows[np.sort(positions[start:end])]))
        return parts

    def _launch(self, lane: Lane, parts: list[Part], slots: int, here: bool) -> None:
        self._idle -= slots
        started = self._clock()
        for work, rows in parts:
            work.started = started
            work.launched[rows] = True
        batch = RaggedBatch.concatenate(
            [work.batch if len(rows) == len(work.batch) else work.batch.take(rows) for work, rows in parts]
        )
        job = partial(lane.engine.run, batch, lane.output, slots)
        if here:
            self._finish(lane, batch, parts, slots, started, None, outcome_of(job))
            self._lone_caller.ran(self._clock())
            return
        done = partial(self._finish, lane, batch, parts, slots, started, self._loop_share.mark())
        self._slots.run(job, done)

    def _may_run_here(self, selection: Selection) -> bool:
        """Whether the event loop may run the only batch itself, because that is short and nobody else is there."""
        return (
            self._on_cores
            and self._lone_caller.is_alone
            and len(self._works) == 1
            and self._idle == self._slots.count
            and len(selection.rows) > 0
            and selection.lane.cost_on(selection.slots).batch_seconds(selection.rows.length) <= SHORT
        )

    def _finish(
        self,
        lane: Lane,
        batch: RaggedBatch,
        parts: list[Part],
        slots: int,
        started: float,
        mark: float | None,
        result: Values | Exception,
    ) -> None:
        """A batch has ended, well or not; without a `mark` of the loop's share where the loop ran it itself."""
        self._idle += slots
        seconds = self._clock() - started
        if mark is not None:
            self._loop_share.note(mark, seconds)
            self._scheduler.slots = self._slots.count - self._kept
        try:
            if isinstance(result, Exception):
                raise result
            self._deliver(batch, parts, result, seconds)
            lane.last_success = self._clock()
            predicted = lane.learn(batch.lengths, seconds, slots)
            if not all(work.is_probe for work, _ in parts):
                self._observe(lane, batch, seconds, predicted)
        except Exception as error:
            # Whatever it was, nobody may be left waiting for an answer that will not come.
            self._lose(lane, parts, error)
        finally:
            self._dispatch()

    def _deliver(self, batch: RaggedBatch, parts: list[Part], values: Values, seconds: float) -> None:
        """Give every work its rows of a batch, and those who follow them theirs."""
        first = 0
        for work, rows in parts:
            end = first + len(rows)
            if work.lane.output is Output.POOLED:
                work.put(rows, values[first:end])
                self._share(work, rows, seconds)
            else:
                work.put_tokens(rows, values[batch.offsets[first] : batch.offsets[end]])
            self._complete(work, seconds)
            first = end

    def _share(self, work: Work, rows: NDArray[np.int64], seconds: float) -> None:
        """Give the rows of a work that are done to those who follow them."""
        for row, follower, place in self._in_flight[work.lane].leave(work, rows.tolist()):
            assert work.values is not None
            follower.started = max(follower.started, work.started, follower.queued)
            follower.put(np.array([place]), work.values[row : row + 1])
            self._complete(follower, seconds)

    def _complete(self, work: Work, seconds: float) -> None:
        """Answer a work if this batch, of so many seconds, was its last."""
        work.compute = max(work.compute, seconds)
        if work.missing or work.future.done():
            return
        queue = work.started - work.queued
        if not work.is_probe:
            self._metrics.of(work.lane.encoder).queue_seconds.observe(queue)
        assert work.values is not None
        work.future.set_result(Computed(work.values, queue, work.compute))

    def _lose(self, lane: Lane, parts: list[Part], error: Exception) -> None:
        """Fail the requests of a batch that failed; their other rows need not be computed."""
        failure = error if isinstance(error, ServiceError) else EngineError(f"the engine failed unexpectedly: {error}")
        logger.error("a batch of %s failed: %s", lane.encoder, error, exc_info=error)
        for work, rows in parts:
            work.fail(failure)
            work.launched[rows] = False
            self._withdraw(work)

    def _observe(self, lane: Lane, batch: RaggedBatch, seconds: float, predicted: float) -> None:
        metrics = self._metrics.of(lane.encoder)
        cells = lane.cost.cells(batch.lengths)
        metrics.cost_error_ratio.observe(abs(seconds - predicted) / max(seconds, 1e-9))
        metrics.compute_seconds.observe(seconds)
        metrics.batch_sequences.observe(len(batch))
        metrics.batch_padding_ratio.observe(1 - batch.tokens / cells)
        metrics.padded_tokens.inc(cells - batch.tokens)
        metrics.sequences.inc(len(batch))
        metrics.tokens.inc(batch.tokens)

    def _show_queue(self) -> None:
        """Let a scrape read how much waits."""
        for encoder in {lane.encoder for lane in self._scheduler.lanes}:
            lanes = [lane for lane in self._scheduler.lanes if lane.encoder == encoder]
            self._metrics.queue_sequences.labels(encoder).set_function(partial(_waiting_sequences, lanes))
            self._metrics.queue_tokens.labels(encoder).set_function(partial(_waiting_tokens, lanes))


def _waiting_sequences(lanes: Sequence[Lane]) -> float:
    return float(sum(len(lane.waiting) for lane in lanes))


def _waiting_tokens(lanes: Sequence[Lane]) -> float:
    return float(sum(int(lane.waiting.length.sum()) for lane in lanes))
