"""Computing in this process: the response cache, and the dispatcher behind it."""

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import numpy as np

from birnn_bundle.ragged import RaggedBatch
from birnn_service.catalog import Encoder, address_of, label_of
from birnn_service.encoders import ServedEncoder
from birnn_service.engine.engine import Output
from birnn_service.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed
from birnn_service.response_cache import ResponseCache
from birnn_service.statistics import Statistics


class LocalCompute:
    """Takes from the response cache what is there, and has the dispatcher of this process compute the rest."""

    def __init__(
        self,
        encoders: Iterable[ServedEncoder],
        dispatcher: Dispatcher,
        cache: ResponseCache,
        metrics: Metrics,
        statistics: Statistics,
    ) -> None:
        self._lanes = {address_of(encoder): encoder.lanes for encoder in encoders}
        self._dispatcher = dispatcher
        self._cache = cache
        self._metrics = metrics
        self._statistics = statistics
        metrics.cache_bytes.set_function(lambda: cache.bytes)

    async def encode(
        self,
        encoder: Encoder,
        output: Output,
        batch: RaggedBatch,
        deadline: float | None = None,
        *,
        caller: str,
        priority: Priority = Priority.NORMAL,
    ) -> Computed:
        """See `birnn_service.pipeline.Compute`."""
        lane = self._lanes[address_of(encoder)][output]
        encode = partial(self._dispatcher.encode, lane, deadline=deadline, caller=caller, priority=priority)
        if output is Output.POOLED and self._cache.enabled:
            return await self._look_up(encoder, lane, batch, encode)
        return await encode(batch)

    async def _look_up(
        self, encoder: Encoder, lane: Lane, batch: RaggedBatch, encode: Callable[[RaggedBatch], Awaitable[Computed]]
    ) -> Computed:
        """Take from the cache what is there, and have the rest computed."""
        metrics, label = self._metrics.of(lane.encoder), label_of(encoder)
        start = time.perf_counter()
        keys = batch.keys()
        kept = [self._cache.get(label, key) for key in keys]
        missing = np.array([row for row, found in enumerate(kept) if found is None], dtype=np.intp)
        hits, seconds = len(keys) - len(missing), time.perf_counter() - start
        self._statistics.count_look_ups(address_of(encoder), hits, len(missing), seconds)
        metrics.cache_hits.inc(hits)
        metrics.cache_misses.inc(len(missing))
        if len(missing) == len(keys):
            computed = await encode(batch)
        elif len(missing):
            computed = await encode(batch.take(missing))
        else:
            computed = Computed(np.empty((0, lane.width), dtype=np.float32), 0.0, 0.0)
        for row, encoding in zip(missing.tolist(), computed.values, strict=True):
            self._cache.put(label, keys[row], encoding)
        if len(missing) == len(keys):
            return computed
        values = np.empty((len(keys), lane.width), dtype=np.float32)
        values[missing] = computed.values
        for row, found in enumerate(kept):
            if found is not None:
                values[row] = found
        return Computed(values, computed.queue, computed.compute)
