"""The batcher: one owner of everything that waits, which keeps every slot of the device busy.

It lives on the event loop and is never shared between threads; only `Engine.run` leaves for a worker thread, one a
slot. It is work-conserving: an idle slot takes what is there now, and nobody waits for a timer. Under load batches grow
by themselves, because more waits when a slot gets free.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch
from service.batcher.lane import Lane, Waiting
from service.batcher.scheduler import Scheduler
from service.engine.engine import Output
from service.errors import DeadlineError, EngineError, ServiceError, UnavailableError
from service.metrics import Metrics

logger = logging.getLogger(__name__)
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The encodings of one request and where their time went, in seconds.

    Attributes:
        values: Pooled: float32 [n, D]. Tokens: float32 [tokens, 2H], sequences back to back.
        queue: From queued to the start of the last of its batches.
        compute: The longest run among its batches.
    """

    values: Values
    queue: float
    compute: float


@dataclass(slots=True, eq=False)
class _Work:
    """A request under way."""

    batch: RaggedBatch
    queued: float
    future: asyncio.Future[Computed]
    values: Values
    missing: int
    started: float = 0.0
    compute: float = 0.0


class Batcher:
    """Runs requests of many callers on the slots of one device, batched."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        metrics: Metrics,
        *,
        max_backlog_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `lanes` on one device.

        Args:
            lanes: Every output of every encoder on the device.
            slots: Batches that run at the same time.
            metrics: Where to count.
            max_backlog_seconds: Predicted seconds of work that may wait; more is refused.
            clock: Seconds since some point in time; deadlines are on it.
        """
        self._scheduler = Scheduler(lanes, slots, max_backlog_seconds)
        self._idle = slots
        self._metrics = metrics
        self._clock = clock
        self._works: dict[int, _Work] = {}
        self._numbers = itertools.count()
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix="birnn-slot")
        self._closed = False

    async def encode(self, lane: Lane, batch: RaggedBatch, deadline: float | None = None) -> Computed:
        """Encode a batch of at least one sequence, none of them empty; cancelling takes it out of the queue.

        Args:
            lane: Which output of which encoder.
            batch: The sequences of one request.
            deadline: When the caller gives up, on the batcher's clock.

        Raises:
            OverloadedError: More work waits than the bound allows.
            DeadlineError: The deadline cannot be met.
            EngineError: The engine failed on one of the request's batches.
            UnavailableError: The batcher was closed.
        """
        if self._closed:
            raise UnavailableError("the server is shutting down; retry with another one")
        now = self._clock()
        number = next(self._numbers)
        rows = len(batch) if lane.output is Output.POOLED else batch.tokens
        work = _Work(
            batch=batch,
            queued=now,
            future=asyncio.get_running_loop().create_future(),
            values=np.empty((rows, lane.width), dtype=np.float32),
            missing=len(batch),
        )
        self._scheduler.add(lane, number, batch.lengths, deadline, now)
        self._works[number] = work
        self._dispatch()
        try:
            return await work.future
        finally:
            del self._works[number]
            if work.missing:
                self._scheduler.remove(lane, [number])
                self._show_queue(lane)

    def close(self) -> None:
        """Fail what waits, let running batches end, and stop the worker threads."""
        self._closed = True
        for work in self._works.values():
            _fail(work, UnavailableError("the server is shutting down; retry with another one"))
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        while self._idle and not self._closed:
            selection = self._scheduler.next(self._idle, self._clock())
            if selection is None:
                return
            for number in selection.late:
                _fail(self._works[number], DeadlineError("the deadline passed, or would before the computation ends"))
            if len(selection.rows):
                self._launch(selection.lane, selection.rows)
            self._show_queue(selection.lane)

    def _launch(self, lane: Lane, taken: Waiting) -> None:
        self._idle -= 1
        started = self._clock()
        parts = []
        for number in np.unique(taken.work).tolist():
            work = self._works[number]
            work.started = started
            parts.append((number, work, taken.row[taken.work == number]))
        batch = RaggedBatch.concatenate([work.batch.take(rows) for _, work, rows in parts])
        task = asyncio.get_running_loop().run_in_executor(self._executor, lane.engine.run, batch, lane.output)
        task.add_done_callback(lambda done: self._finish(lane, batch, parts, started, done))

    def _finish(
        self,
        lane: Lane,
        batch: RaggedBatch,
        parts: list[tuple[int, _Work, NDArray[np.int64]]],
        started: float,
        done: "asyncio.Future[Values]",
    ) -> None:
        self._idle += 1
        seconds = self._clock() - started
        try:
            if done.cancelled():
                raise UnavailableError("the server is shutting down; retry with another one")
            values = done.result()
            lane.last_success = self._clock()
            self._observe(lane, batch, seconds)
            self._deliver(lane, batch, parts, values, seconds)
        except Exception as error:
            # Whatever it was, nobody may be left waiting for an answer that will not come.
            self._lose(lane, parts, error)
        finally:
            self._dispatch()

    def _deliver(
        self,
        lane: Lane,
        batch: RaggedBatch,
        parts: list[tuple[int, _Work, NDArray[np.int64]]],
        values: Values,
        seconds: float,
    ) -> None:
        position = 0
        for _, work, rows in parts:
            end = position + len(rows)
            if lane.output is Output.POOLED:
                work.values[rows] = values[position:end]
            else:
                for row, source in zip(rows.tolist(), range(position, end), strict=True):
                    target = slice(work.batch.offsets[row], work.batch.offsets[row + 1])
                    work.values[target] = values[batch.offsets[source] : batch.offsets[source + 1]]
            position = end
            work.missing -= len(rows)
            work.compute = max(work.compute, seconds)
            if work.missing == 0 and not work.future.done():
                queue = work.started - work.queued
                self._metrics.queue_seconds.labels(lane.encoder).observe(queue)
                work.future.set_result(Computed(work.values, queue, work.compute))

    def _lose(self, lane: Lane, parts: list[tuple[int, _Work, NDArray[np.int64]]], error: Exception) -> None:
        """Fail the requests of a batch that failed; their other rows need not be computed."""
        failure = error if isinstance(error, ServiceError) else EngineError(f"the engine failed unexpectedly: {error}")
        logger.error("a batch of %s failed: %s", lane.encoder, error, exc_info=error)
        for _, work, _ in parts:
            _fail(work, failure)
        self._scheduler.remove(lane, [number for number, _, _ in parts])

    def _observe(self, lane: Lane, batch: RaggedBatch, seconds: float) -> None:
        steps = int(batch.lengths.max())
        cells = steps * len(batch)
        predicted = lane.learn(len(batch), steps, seconds)
        self._metrics.cost_error_ratio.labels(lane.encoder).observe(abs(seconds - predicted) / max(seconds, 1e-9))
        self._metrics.compute_seconds.labels(lane.encoder).observe(seconds)
        self._metrics.batch_sequences.labels(lane.encoder).observe(len(batch))
        self._metrics.batch_padding_ratio.labels(lane.encoder).observe(1 - batch.tokens / cells)
        self._metrics.padded_tokens.labels(lane.encoder).inc(cells - batch.tokens)
        self._metrics.sequences.labels(lane.encoder).inc(len(batch))
        self._metrics.tokens.labels(lane.encoder).inc(batch.tokens)

    def _show_queue(self, lane: Lane) -> None:
        waiting = [each.waiting for each in self._scheduler.lanes if each.encoder == lane.encoder]
        self._metrics.queue_sequences.labels(lane.encoder).set(sum(map(len, waiting)))
        self._metrics.queue_tokens.labels(lane.encoder).set(sum(int(each.length.sum()) for each in waiting))


def _fail(work: _Work, error: ServiceError) -> None:
    if not work.future.done():
        work.future.set_exception(error)
