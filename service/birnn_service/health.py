"""Health is a real forward pass: every encoder proves again and again that it still gives the right numbers."""

import asyncio
import logging
import time
from typing import Literal

import numpy as np

from birnn_service.catalog import Encoders, address_of
from birnn_service.engine.engine import Output
from birnn_service.engine.gate import drift_of, fault_of
from birnn_service.errors import OverloadedError, ServiceError
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.caller_flow import HEALTH
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.state import ServingState

logger = logging.getLogger(__name__)

Outcome = Literal["passed", "refused", "failed"]

# Of a busy encoder's time probes take a thousandth at most.
BUSY_SHARE = 1e-3


class HealthMonitor:
    """Runs a golden sequence through the dispatcher, as any call would: often where nothing else runs, else seldom."""

    def __init__(
        self,
        encoders: Encoders[ServedEncoder],
        dispatcher: Dispatcher,
        state: ServingState,
        metrics: Metrics,
        *,
        interval: float,
        patience: float,
    ) -> None:
        """Watch `encoders`.

        Args:
            encoders: What is served.
            dispatcher: Where it runs.
            state: Where encoders that fail are noted.
            metrics: Where probes are counted; as calls they are not.
            interval: Seconds between looks.
            patience: Seconds that a probe may take; it waits behind the queue like everybody else.
        """
        self._encoders = encoders
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._interval = interval
        self._patience = patience
        self._state = state
        # Engines have passed their gates by then.
        self._began = self._looked = time.monotonic()
        self._probed: dict[ServedEncoder, float] = {}
        # Those that gave wrong numbers, until they give right ones: that batches succeed proves nothing of them.
        self._wrong: dict[ServedEncoder, str] = {}

    @property
    def awake(self) -> bool:
        """Whether the event loop still lets it look; to be asked by another thread.

        The loop runs some batches itself, and an engine that hangs in one would leave nothing to report it.
        """
        return time.monotonic() - self._looked < self._interval + 2 * self._patience

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self._looked = time.monotonic()
            await asyncio.sleep(self._interval)
            await self._look()

    async def _look(self) -> None:
        """Have encoders prove themselves, and note those that do not."""
        failed = {}
        for encoder in self._encoders:
            # Some may be unloaded while others prove themselves.
            if encoder in list(self._encoders) and self._is_due(encoder):
                with self._encoders.using(encoder):
                    failed[encoder] = await self._prove(encoder)
        served = set(self._encoders)
        self._wrong = {encoder: reason for encoder, reason in self._wrong.items() if encoder in served}
        self._probed = {encoder: when for encoder, when in self._probed.items() if encoder in served}
        found = (failed | self._wrong).items()
        unhealthy = {encoder: reason for encoder, reason in found if reason and encoder in served}
        was_live = self._state.live
        self._state.set_unhealthy({address_of(encoder): reason for encoder, reason in unhealthy.items()})
        if self._state.live != was_live:
            level = logging.INFO if self._state.live else logging.ERROR
            logger.log(level, "health: %s", "good again" if self._state.live else "bad")

    def _is_due(self, encoder: ServedEncoder) -> bool:
        """Whether an encoder has to prove itself: an idle one always, a busy one where that costs next to nothing."""
        now = time.monotonic()
        if encoder in self._wrong or encoder.last_success < now - self._interval:
            return True
        cost = encoder.lanes[Output.POOLED].cost.seconds(1, int(encoder.bundle.golden.batch.lengths.min()))
        return cost <= BUSY_SHARE * (now - self._probed.get(encoder, self._began))

    async def _prove(self, encoder: ServedEncoder) -> str:
        """Probe an encoder; returns why it is unhealthy, if it is."""
        outcome, reason = await self._probe(encoder)
        self._metrics.health_probes.labels(*address_of(encoder), outcome).inc()
        if reason:
            logger.error("encoder %s failed its health probe: %s", encoder.bundle.label, reason)
        return reason

    async def _probe(self, encoder: ServedEncoder) -> tuple[Outcome, str]:
        self._looked = self._probed[encoder] = time.monotonic()
        golden = encoder.bundle.golden
        shortest = int(golden.batch.lengths.argmin())
        batch = golden.batch.take(np.array([shortest]))
        try:
            async with asyncio.timeout(self._patience):
                computed = await self._dispatcher.encode(encoder.lanes[Output.POOLED], batch, caller=HEALTH)
        except OverloadedError as error:
            # A queue that is full and moves proves nothing about this encoder; one that stands still has a hung engine.
            return ("refused", "") if self._moves() else ("failed", f"{error}, and nothing runs")
        except TimeoutError:
            # Behind much other work of its own a probe may come too late.
            if time.monotonic() - encoder.last_success < self._interval + self._patience:
                return "refused", ""
            return "failed", f"no answer in {self._patience:g} s"
        except ServiceError as error:
            return "failed", str(error)
        expected = golden.pooled[shortest : shortest + 1]
        drift = drift_of(encoder.limits, computed.values, expected)
        self._metrics.golden_drift_ratio.labels(*address_of(encoder)).set(drift)
        if fault := fault_of(encoder.limits, computed.values, expected):
            self._wrong[encoder] = f"it gives wrong numbers: {fault}"
            return "failed", self._wrong[encoder]
        self._wrong.pop(encoder, None)
        return "passed", ""

    def _moves(self) -> bool:
        """Whether a batch of any encoder has succeeded within the time that a probe would have had."""
        latest = max([self._began, *(encoder.last_success for encoder in self._encoders)])
        return time.monotonic() - latest < self._interval + self._patience
