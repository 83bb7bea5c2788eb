"""Computing in this process: the response cache, and the dispatcher behind it."""

import time
from collections.abc import Awaitable
from dataclasses import replace

import numpy as np

from birnn_service.catalog import address_of, width_of
from birnn_service.compute import Work
from birnn_service.engine.engine import Output
from birnn_service.errors import OverloadedError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.request import Computed
from birnn_service.rate_limits import RateLimits
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.response_cache import ResponseCache
from birnn_service.statistics import Statistics
from birnn_service.tenants import partition_of


class LocalCompute:
    """Takes from the response cache what is there, and has the dispatcher of this process compute the rest."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        cache: ResponseCache,
        metrics: Metrics,
        statistics: Statistics,
        limits: RateLimits,
    ) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._metrics = metrics
        self._statistics = statistics
        self._limits = limits
        metrics.cache_bytes.read_one(lambda: cache.bytes)
        metrics.cache_limit_bytes.read_one(lambda: cache.max_bytes)

    async def encode(self, work: Work) -> Computed:
        """See `birnn_service.compute.Compute`."""
        self._limits.take(work.caller, len(work.batch))
        try:
            if work.output is Output.POOLED and self._cache.enabled:
                return await self._look_up(work)
            return await self._run(work)
        except OverloadedError:
            self._limits.give_back(work.caller, len(work.batch))
            raise

    def _run(self, work: Work) -> Awaitable[Computed]:
        """Have the dispatcher do the work."""
        encoder = work.encoder
        assert isinstance(encoder, ServedEncoder)
        lane = encoder.lanes[work.output]
        return self._dispatcher.encode(
            lane, work.batch, work.deadline, caller=work.caller, priority=work.priority, span=work.span
        )

    async def _look_up(self, work: Work) -> Computed:
        """Take from the cache what is there, and have the rest computed."""
        encoder, batch, partition = work.encoder, work.batch, partition_of(work.caller)
        instance, width = encoder.instance, width_of(encoder, work.output)
        metrics = self._metrics.of(address_of(encoder))
        start = time.perf_counter()
        keys = batch.keys()
        kept = [self._cache.get(instance, key, partition) for key in keys]
        missing = np.array([row for row, found in enumerate(kept) if found is None], dtype=np.intp)
        hits, seconds = len(keys) - len(missing), time.perf_counter() - start
        self._statistics.count_look_ups(instance, hits, len(missing), seconds)
        metrics.cache_hits.inc(hits)
        metrics.cache_misses.inc(len(missing))
        if len(missing) == len(keys):
            computed = await self._run(work)
        elif len(missing):
            computed = await self._run(replace(work, batch=batch.take(missing)))
        else:
            computed = Computed.nothing(width)
        for row, encoding in zip(missing.tolist(), computed.values, strict=True):
            self._cache.put(instance, keys[row], encoding, partition)
        if len(missing) == len(keys):
            return computed
        values = np.empty((len(keys), width), dtype=np.float32)
        values[missing] = computed.values
        for row, found in enumerate(kept):
            if found is not None:
                values[row] = found
        return Computed(values, computed.queue, computed.compute, computed.batches)
