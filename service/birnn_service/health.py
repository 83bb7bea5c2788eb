"""Health is a real forward pass: an encoder that has been idle proves that it still gives the right numbers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import numpy as np

from birnn_service.catalog import Encoders
from birnn_service.encoders import ServedEncoder
from birnn_service.engine.engine import Output
from birnn_service.engine.gate import limits_of
from birnn_service.errors import OverloadedError, ServiceError
from birnn_service.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.queue import HEALTH

logger = logging.getLogger(__name__)

Outcome = Literal["passed", "refused", "failed"]


class HealthMonitor:
    """Runs a golden sequence through the dispatcher whenever no batch has succeeded for a while."""

    def __init__(
        self,
        encoders: Encoders[ServedEncoder],
        dispatcher: Dispatcher,
        metrics: Metrics,
        *,
        interval: float,
        patience: float,
        changed: Callable[[bool], Awaitable[None]],
    ) -> None:
        """Watch `encoders`.

        Args:
            encoders: What is served.
            dispatcher: Where it runs.
            metrics: Where probes are counted; as calls they are not.
            interval: Seconds between looks.
            patience: Seconds that a probe may take; it waits behind the queue like everybody else.
            changed: Told when health turns.
        """
        self._encoders = encoders
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._interval = interval
        self._patience = patience
        self._changed = changed
        self._healthy = True
        # Engines have passed their gates by then.
        self._began = self._looked = time.monotonic()

    @property
    def awake(self) -> bool:
        """Whether the event loop still lets it look; to be asked by another thread.

        The loop runs some batches itself, and an engine that hangs in one would leave nobody to say so.
        """
        return time.monotonic() - self._looked < self._interval + 2 * self._patience

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._looked = time.monotonic()
            await asyncio.sleep(self._interval)
            idle_since = time.monotonic() - self._interval
            idle = [encoder for encoder in self._encoders if encoder.last_success < idle_since]
            healthy = all([await self._proves_itself(encoder) for encoder in idle])
            if healthy != self._healthy:
                self._healthy = healthy
                logger.log(logging.INFO if healthy else logging.ERROR, "health: %s", "good again" if healthy else "bad")
                await self._changed(healthy)

    async def _proves_itself(self, encoder: ServedEncoder) -> bool:
        outcome = await self._probe(encoder)
        self._metrics.health_probes.labels(encoder.bundle.manifest.name, outcome).inc()
        return outcome != "failed"

    async def _probe(self, encoder: ServedEncoder) -> Outcome:
        self._looked = time.monotonic()
        golden = encoder.bundle.golden
        shortest = int(golden.batch.lengths.argmin())
        batch = golden.batch.take(np.array([shortest]))
        try:
            async with asyncio.timeout(self._patience):
                computed = await self._dispatcher.encode(encoder.lanes[Output.POOLED], batch, caller=HEALTH)
        except OverloadedError as error:
            # A queue that is full and moves proves nothing about this encoder; one that stands still has a hung engine.
            if self._moves():
                return "refused"
            logger.error("encoder %s failed its health probe: %r, and nothing runs", encoder.bundle.label, error)
            return "failed"
        except (ServiceError, TimeoutError) as error:
            logger.error("encoder %s failed its health probe: %r", encoder.bundle.label, error)
            return "failed"
        error_size = float(np.abs(computed.values[0] - golden.pooled[shortest]).max())
        if not error_size <= limits_of(encoder.bundle, encoder.engine).tolerance:
            logger.error("encoder %s gives wrong numbers: off by %g", encoder.bundle.label, error_size)
            return "failed"
        return "passed"

    def _moves(self) -> bool:
        """Whether a batch of any encoder has succeeded within the time that a probe would have had."""
        latest = max(self._began, *(encoder.last_success for encoder in self._encoders))
        return time.monotonic() - latest < self._interval + self._patience
