"""The text of /metrics for callers of the HTTP port: collected once for all who ask at the same time."""

import asyncio
import gzip
import time
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

# How long a text is given to further callers. A page asks once a second, and any number of pages may be open.
KEPT_SECONDS = 0.5
# Repeated names pack well at any level.
LEVEL = 1


class MetricsText(Protocol):
    """Where callers get the metrics of the whole server."""

    async def packed(self) -> bytes:
        """All metrics as Prometheus reads them, packed by gzip.

        Raises:
            ServiceError: They cannot be had.
        """


class CollectedText:
    """Collects the metrics, on a thread."""

    def __init__(self, metrics: Collector) -> None:
        """Give the text of `metrics`."""
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        self._collecting: asyncio.Task[bytes] | None = None
        self._began = 0.0

    async def packed(self) -> bytes:
        """See `MetricsText.packed`."""
        now = time.monotonic()
        if self._collecting is None or (self._collecting.done() and now - self._began > KEPT_SECONDS):
            self._began = now
            self._collecting = asyncio.create_task(asyncio.to_thread(self._collect))
        # A caller that leaves does not take the text from the others.
        return await asyncio.shield(self._collecting)

    def _collect(self) -> bytes:
        return gzip.compress(generate_latest(self._registry), LEVEL)
