"""The dispatcher: takes requests, and keeps the slots of one device busy with their batches.

It lives on the event loop and is never shared between threads. Only `Engine.run` is called on worker threads, one for
each slot, apart from short batches of a single sequential caller (see `placement`). It is work-conserving: an idle slot
takes whatever is queued. Requests that arrive in the same iteration of the event loop are batched together. There is no
delay timer: under load batches grow by themselves, because more rows wait when a slot becomes idle.
"""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import Output
from birnn_service.errors import DrainingError, EngineError, ExpiredError, ServiceError
from birnn_service.observe.spans import SpanIds
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.observer import Observer
from birnn_service.queueing.placement import Placement
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed, Request, Values
from birnn_service.queueing.run import Part, Run
from birnn_service.queueing.scheduler import Scheduler
from birnn_service.queueing.sharing import Sharing
from birnn_service.queueing.slots import Slots, outcome_of
from birnn_service.queueing.waiting import Waiting

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs requests of many callers on the slots of one device, in batches."""

    def __init__(
        self,
        lanes: Sequence[Lane] = (),
        slots: int = 0,
        *,
        observers: Sequence[Observer] = (),
        max_backlog_seconds: float = 30.0,
        weight_of: Callable[[str], float] = lambda caller: 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `lanes` on one device.

        Args:
            lanes: Every output of every encoder on the device; others may be added later.
            slots: Batches that run at the same time, at least; lanes that are added may bring more.
            observers: Are told what happens.
            max_backlog_seconds: Predicted seconds of work that may wait; more is refused.
            weight_of: The weight of a caller's share of the device.
            clock: Seconds since some point in time; deadlines are on it.
        """
        self._scheduler = Scheduler(lanes, slots, max_backlog_seconds, weight_of)
        self._placement = Placement(lanes, slots)
        self._observers = observers
        self._clock = clock
        self._sharing = _sharing(lanes)
        # By lane, batches that run; and who waits for them to end.
        self._running: Counter[Lane] = Counter()
        self._quiet: dict[Lane, asyncio.Event] = {}
        self._requests: set[Request] = set()
        # What each submission in the scheduler stands for.
        self._submissions: dict[int, Part] = {}
        self._numbers = itertools.count()
        self._slots = Slots(slots, yielding=all(lane.engine.info.parallel_slots for lane in lanes))
        self._dispatch_is_due = False
        self._closed = False

    @property
    def lanes(self) -> Sequence[Lane]:
        """Where requests wait."""
        return self._scheduler.lanes

    def backlog_of(self, lane: Lane) -> float:
        """Predicted seconds until all that waits in a lane has been computed."""
        return self._scheduler.backlog_of(lane)

    @property
    def slots(self) -> int:
        """Batches that run at the same time."""
        return self._scheduler.slots

    def add(self, lanes: Sequence[Lane]) -> None:
        """Serve further lanes."""
        slots = max(self._scheduler.slots, *(lane.engine.info.slots for lane in lanes))
        for lane in lanes:
            self._scheduler.open(lane)
        self._scheduler.slots = slots
        self._sharing |= _sharing(lanes)
        self._slots.yielding = all(lane.engine.info.parallel_slots for lane in self._scheduler.lanes)
        self._slots.grow(slots)
        self._placement.follow(self._scheduler.lanes, slots)

    async def remove(self, lanes: Sequence[Lane]) -> None:
        """Serve lanes no longer that get no new requests; returns once the last of their batches has ended.

        Requests in them have ended, but batches may run on for requests that were cancelled.
        """
        for lane in lanes:
            while self._running[lane]:
                await self._quiet.setdefault(lane, asyncio.Event()).wait()
            del self._running[lane]
            self._sharing.pop(lane, None)
            self._scheduler.close(lane)
        self._placement.follow(self._scheduler.lanes, self._scheduler.slots)

    async def encode(
        self,
        lane: Lane,
        batch: RaggedBatch,
        deadline: float | None = None,
        *,
        caller: str,
        priority: Priority = Priority.NORMAL,
        span: SpanIds | None = None,
    ) -> Computed:
        """Encode a batch of at least one sequence, none of them empty; cancelling takes it out of the queue.

        Pooled encodings of sequences that are in flight already, for the same tenant, are not computed again where
        sharing them is no slower.

        Args:
            lane: Which output of which encoder.
            batch: The sequences of one request.
            deadline: When the caller gives up, on the dispatcher's clock.
            caller: Who asks. Callers share the device fairly, whatever else they send.
            priority: How urgent it is among the caller's requests; LOW also yields to other callers.
            span: The span of the call, if it is traced.

        Raises:
            OverloadedError: More work waits than the bound allows, and the caller's share of it is full.
            DeadlineError: The deadline cannot be met, or has passed.
            EngineError: The engine failed on one of the request's batches.
            DrainingError: The dispatcher was closed.
        """
        if self._closed:
            raise DrainingError("the server is shutting down; retry with another one")
        future: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        request = Request(lane, batch, caller, self._clock(), deadline, future, len(batch), priority, span=span)
        self._placement.arrived(bool(self._requests), request.queued)
        self._requests.add(request)
        try:
            self._submit(request, self._join(request))
            self._dispatch_soon()
            return await future
        finally:
            self._requests.discard(request)
            future.cancel()
            if request.missing:
                self._withdraw(request)
            for number in request.submissions:
                self._submissions.pop(number, None)

    def close(self) -> None:
        """Fail what waits, let running batches end, and stop the worker threads."""
        self._closed = True
        for request in self._requests:
            request.fail(DrainingError("the server is shutting down; retry with another one"))
        self._slots.close()

    def _join(self, request: Request) -> NDArray[np.int64]:
        """Rows of a new request that have to be computed; the others are in flight already."""
        rows = np.arange(len(request.batch))
        sharing = self._sharing.get(request.lane)
        if sharing is None:
            return rows
        request.keys = request.batch.keys()
        computed = sharing.join(request)
        if len(computed) == len(rows):
            return rows
        for observer in self._observers:
            observer.shared(request, len(rows) - len(computed))
        return np.array(computed, dtype=np.int64)

    def _submit(self, request: Request, rows: NDArray[np.int64]) -> None:
        """Queue rows of a request."""
        if len(rows) == 0:
            return
        number = next(self._numbers)
        lengths = request.batch.lengths if len(rows) == len(request.batch) else request.batch.lengths[rows]
        now = self._clock()
        self._scheduler.add(request.lane, number, lengths, request.deadline, now, request.caller, request.priority)
        self._submissions[number] = Part(request, rows)
        request.submissions.append(number)

    def _withdraw(self, request: Request) -> None:
        """Take out of the queue what still waits of a request that has ended early."""
        if request.submissions:
            self._scheduler.remove(request.lane, request.submissions, request.caller)
        self._abandon(request, np.flatnonzero(~request.launched).tolist())

    def _abandon(self, request: Request, rows: list[int]) -> None:
        """Rows of a request will not be computed: their followers take their place."""
        sharing = self._sharing.get(request.lane)
        if sharing is None or self._closed:
            return
        # The most urgent ones first, for those that come later follow them.
        for _, orphan, row in sorted(sharing.leave(request, rows), key=lambda follower: follower[1].priority):
            if orphan.future.done() or not sharing.lead(orphan, row):
                continue
            try:
                self._submit(orphan, np.array([row]))
            except ServiceError as error:
                orphan.fail(error)
        self._dispatch()

    def _dispatch_soon(self) -> None:
        """Dispatch at the end of this iteration of the event loop, if a slot is idle."""
        if self._placement.idle and not self._dispatch_is_due:
            self._dispatch_is_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Fill the idle slots with what waits."""
        self._dispatch_is_due = False
        if self._closed:
            return
        selections, late = self._scheduler.fill(self._placement.idle, self._clock())
        inline = self._placement.runs_inline(selections, len(self._requests))
        for number in late:
            error = ExpiredError("the deadline passed, or would before the computation ends")
            self._submissions[number].request.fail(error)
        for selection in selections:
            run = Run(selection.lane, self._parts(selection.rows), selection.slots, self._clock())
            self._start(run, inline)

    def _parts(self, taken: Waiting) -> list[Part]:
        """The rows of a batch by request."""
        if len(taken) == 1:
            part = self._submissions[int(taken.submission[0])]
            return [Part(part.request, part.rows[taken.row])]
        order = np.argsort(taken.submission, kind="stable")
        numbers, positions = taken.submission[order], taken.row[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        parts = []
        for start, end in itertools.pairwise([*starts, len(numbers)]):
            part = self._submissions[int(numbers[start])]
            parts.append(Part(part.request, part.rows[np.sort(positions[start:end])]))
        return parts

    def _start(self, run: Run, inline: bool) -> None:
        """Run a batch on its slots, or here and now."""
        self._placement.started(run.slots)
        self._running[run.lane] += 1
        for part in run.parts:
            part.request.started = run.started
            part.request.launched[part.rows] = True
        ended = partial(self._ended, run)
        if inline:
            ended(outcome_of(run.compute))
            self._placement.ran_inline(self._clock())
        else:
            self._slots.run(run.compute, ended)

    def _ended(self, run: Run, result: Values | Exception) -> None:
        """A run has ended, well or not."""
        self._placement.ended(run.slots)
        self._running[run.lane] -= 1
        if not self._running[run.lane] and run.lane in self._quiet:
            self._quiet.pop(run.lane).set()
        seconds = self._clock() - run.started
        for observer in self._observers:
            observer.ended(run, seconds, result if isinstance(result, Exception) else None)
        try:
            if isinstance(result, Exception):
                raise result
            self._deliver(run, result, seconds)
            run.lane.last_success = self._clock()
            predicted = run.lane.learn(run.batch.lengths, seconds, run.slots)
            for observer in self._observers:
                observer.ran(run, seconds, predicted)
        except Exception as error:
            # Whatever the error is, no request may be left waiting for an answer that will not come.
            self._lose(run, error)
        finally:
            self._dispatch()

    def _deliver(self, run: Run, values: Values, seconds: float) -> None:
        """Give every request its rows of a run, and their followers theirs."""
        first = 0
        for part in run.parts:
            request, rows = part.request, part.rows
            end = first + len(rows)
            if run.lane.output is Output.POOLED:
                request.put(rows, values[first:end])
                self._share(part, seconds)
            else:
                request.put_tokens(rows, values[run.batch.offsets[first] : run.batch.offsets[end]])
            self._complete(request, seconds)
            first = end

    def _share(self, part: Part, seconds: float) -> None:
        """Give rows that are done to those that follow them."""
        request = part.request
        for row, follower, place in self._sharing[request.lane].leave(request, part.rows.tolist()):
            assert request.values is not None
            follower.started = max(follower.started, request.started, follower.queued)
            follower.put(np.array([place]), request.values[row : row + 1])
            self._complete(follower, seconds)

    def _complete(self, request: Request, seconds: float) -> None:
        """Answer a request if this run was its last; `seconds` is how long the run took."""
        request.compute = max(request.compute, seconds)
        if request.missing or request.future.done():
            return
        assert request.values is not None
        queue = request.started - request.queued
        request.future.set_result(Computed(request.values, queue, request.compute, request.batches))
        for observer in self._observers:
            observer.answered(request, queue)

    def _lose(self, run: Run, error: Exception) -> None:
        """Fail the requests of a run that failed; their other rows need not be computed."""
        # Whatever else it was may speak of files of this machine: the log has it all.
        unexpected = EngineError(f"the engine failed unexpectedly ({type(error).__name__}); the server's log says more")
        failure = error if isinstance(error, ServiceError) else unexpected
        logger.error("a batch of %s failed: %s", run.lane.encoder, error, exc_info=error)
        for part in run.parts:
            part.request.fail(failure)
            part.request.launched[part.rows] = False
            self._withdraw(part.request)


def _sharing(lanes: Sequence[Lane]) -> dict[Lane, Sharing]:
    return {lane: Sharing(lane.engine.info.max_rows) for lane in lanes if lane.output is Output.POOLED}
