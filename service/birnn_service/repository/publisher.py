"""Everything in a server that follows what is served: told in an order in which no call is lost."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from birnn_service.catalog import Catalog, Encoder, address_of, label_of
from birnn_service.memory import give_back_memory
from birnn_service.observe.metrics import OUTCOMES, Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.repository.background import in_background
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.response_cache import ResponseCache
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics

logger = logging.getLogger(__name__)


class OtherProcesses(Protocol):
    """Processes that take calls and have encoders of their own to find."""

    async def serve(self, encoder: Encoder) -> None:
        """Let new calls find an encoder; returns once all of them do."""

    async def withdraw(self, encoder: Encoder) -> None:
        """Let no new call find an encoder; returns once none does."""

    async def until_released(self, encoder: Encoder) -> None:
        """Wait until nothing will be asked of an encoder that was withdrawn."""

    def list(self) -> None:
        """Say what there is beside what is served."""


class Publisher:
    """Puts encoders into service and takes them out of it."""

    def __init__(
        self,
        encoders: Catalog[ServedEncoder],
        dispatcher: Dispatcher,
        statistics: Statistics,
        cache: ResponseCache,
        state: ServingState,
        metrics: Metrics,
    ) -> None:
        """Change what all of these know."""
        self._encoders = encoders
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._cache = cache
        self._state = state
        self._metrics = metrics
        self.others: OtherProcesses | None = None
        """Set once there are some."""
        self._unloading: dict[ServedEncoder, asyncio.Task[None]] = {}
        self._tidying: set[asyncio.Task[None]] = set()

    def publish(self, encoder: ServedEncoder) -> ServedEncoder | None:
        """Let new calls of this process find an encoder; `tell` is to follow.

        Returns:
            The one that they found in its place, which is to be retired after that.

        Raises:
            StartupError: Too many are served already.
        """
        lanes = list(encoder.lanes.values())
        self._statistics.add(encoder)
        self._dispatcher.add(lanes)
        replaced = self._encoders.put(encoder)
        if replaced is not None:
            self._metrics.encoder_info.remove(*_described(replaced))
        address = address_of(encoder)
        self._metrics.begin(address)
        self._metrics.encoder_ready.labels(*address).set(1)
        self._metrics.encoder_info.labels(*_described(encoder)).set(1)
        self._metrics.encoder_fallback.labels(*address).set(encoder.is_fallback)
        self._metrics.encoder_loaded_time_seconds.labels(*address).set_to_current_time()
        self._metrics.encoder_loads.labels(*address, "loaded").inc()
        # `rate` cannot see the first failure of a series that begins with it.
        self._metrics.encoder_loads.labels(*address, "refused")
        for outcome in OUTCOMES:
            self._metrics.health_probes.labels(*address, outcome)
        # What failed its probes was the one before.
        self._state.set_unhealthy({one: reason for one, reason in self._state.unhealthy.items() if one != address})
        return replaced

    async def tell(self, encoder: ServedEncoder) -> None:
        """Let new calls of all other processes find an encoder, too."""
        if self.others is not None:
            await self.others.serve(encoder)

    @property
    def unloading(self) -> Collection[ServedEncoder]:
        """Encoders that no new call of this process finds, and that are not freed yet."""
        return self._unloading.keys()

    def retire(self, encoder: ServedEncoder, freed: Callable[[], None]) -> asyncio.Event:
        """Take an encoder out of service, and free it when its calls have ended.

        Args:
            encoder: It is served, or was replaced.
            freed: Called once it is freed, or cannot be.

        Returns:
            What is set once no new call finds it, in any process.
        """
        if self._encoders.take_out(encoder):
            address = address_of(encoder)
            for state in (self._metrics.encoder_ready, self._metrics.encoder_fallback):
                state.remove(*address)
            self._metrics.encoder_loaded_time_seconds.remove(*address)
            self._metrics.encoder_info.remove(*_described(encoder))
            self._metrics.encoder_loads.labels(*address, "unloaded").inc()
        withdrawn = asyncio.Event()
        task = asyncio.create_task(self._free(encoder, withdrawn))
        self._unloading[encoder] = task
        task.add_done_callback(lambda task: self._unloaded(encoder, task, freed))
        return withdrawn

    async def _free(self, encoder: ServedEncoder, withdrawn: asyncio.Event) -> None:
        """Let calls that use an encoder end, and free it."""
        if self.others is not None:
            await self.others.withdraw(encoder)
        withdrawn.set()
        if self.others is not None:
            await self.others.until_released(encoder)
        await self._encoders.until_unused(encoder)
        lanes = list(encoder.lanes.values())
        await self._dispatcher.remove(lanes)
        self._statistics.remove(encoder)
        self._metrics.end(address_of(encoder))
        await self._cache.forget(encoder.instance)
        self._encoders.forget(encoder)
        await in_background(encoder.engine.close)

    def _unloaded(self, encoder: ServedEncoder, task: "asyncio.Task[None]", freed: Callable[[], None]) -> None:
        del self._unloading[encoder]
        if task.cancelled():
            return
        if error := task.exception():
            logger.error("encoder %s could not be unloaded", label_of(encoder), exc_info=error)
        freed()
        # Once the last reference to it, that of this call, is gone.
        asyncio.get_running_loop().call_soon(self._give_back_memory)

    def _give_back_memory(self) -> None:
        task = asyncio.create_task(in_background(give_back_memory))
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    def list(self) -> None:
        """Tell other processes what there is beside what is served."""
        if self.others is not None:
            self.others.list()


def _described(encoder: ServedEncoder) -> tuple[str, ...]:
    manifest, info = encoder.manifest, encoder.info
    return (
        *address_of(encoder),
        manifest.architecture,
        str(manifest.dimension),
        manifest.pooling,
        info.engine,
        info.device,
        info.precision,
    )
