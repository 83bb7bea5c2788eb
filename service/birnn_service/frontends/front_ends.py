"""All front-end processes of a server: started, started again where one ends, told of health, drained."""

import asyncio
import itertools
import logging
import sys
from contextlib import ExitStack, suppress
from types import TracebackType

from birnn_service.catalog import Encoder, Encoders
from birnn_service.compute import Compute
from birnn_service.errors import StartupError
from birnn_service.frontends.front_end import END_SECONDS, FrontEnd
from birnn_service.frontends.messages import Drain, Followed, Health, Listed, Released, Retired, Served, Setup
from birnn_service.frontends.setup import write_encoder, write_listing, write_setup
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.metrics_text import CollectedText
from birnn_service.repository.orders import Orders
from birnn_service.settings import Settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.transports.shared_port import Ports, SharedPort

logger = logging.getLogger(__name__)

# Seconds before a front-end that has ended is started again: the least, and the most where it keeps ending.
RESTART_SECONDS, LONGEST_RESTART_SECONDS = 0.1, 10.0
# One that has lived so long is not one that keeps ending.
SETTLED_SECONDS = 60.0
# Front-ends report twice a second. One that is silent for this many intervals of health checks is dead.
SILENT_CHECKS = 10


class FrontEnds:
    """Takes calls in several processes, which share a port."""

    def __init__(
        self,
        encoders: Encoders[Encoder],
        compute: Compute,
        orders: Orders,
        state: ServingState,
        settings: Settings,
        metrics: Metrics,
        statistics: Statistics,
    ) -> None:
        """Prepare front-ends.

        Args:
            encoders: What is served.
            compute: What computes their requests.
            orders: Carries out the orders of their callers.
            state: Whether calls are taken; front-ends hear of it.
            settings: Address, limits, and how many.
            metrics: Where restarts are counted, and what they count themselves.
            statistics: Where they count calls.
        """
        self._encoders = encoders
        self._compute = compute
        self._orders = orders
        self._settings = settings
        self._metrics = metrics
        self._text = CollectedText(metrics.registry)
        self._statistics = statistics
        self._lives = itertools.count(1)
        self._running: set[FrontEnd] = set()
        # By instance: what front-ends owe that were told that it is served no longer.
        self._releasing: dict[int, list[asyncio.Future[None]]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._telling: asyncio.Task[None]
        self._state = state
        self._draining = asyncio.Event()
        self._held: ExitStack
        self._ports: Ports
        metrics.frontends.read_one(lambda: self._listening)

    async def __aenter__(self) -> "FrontEnds":
        """Take the ports.

        Raises:
            StartupError: One is taken, or this system cannot share it.
        """
        if sys.platform != "linux":
            raise StartupError(
                "--frontends needs Linux, whose processes share a port evenly and memory without a name; "
                "leave it at 0 here: one process does everything"
            )
        with ExitStack() as held:
            grpc = held.enter_context(SharedPort(self._settings.grpc_address)).number
            address = self._settings.http_address
            http = None if address is None else held.enter_context(SharedPort(address)).number
            self._ports, self._held = Ports(grpc, http), held.pop_all()
        self._telling = asyncio.create_task(self._tell_health())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that still runs, and give the ports back."""
        for task in (*self._keepers, self._telling):
            task.cancel()
        for front_end in self._running:
            front_end.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._held.close()

    @property
    def _listening(self) -> int:
        return sum(front_end.listening.is_set() for front_end in self._running)

    async def listen(self) -> Ports:
        """Start all front-ends and wait until every one of them takes calls.

        Returns:
            The ports.

        Raises:
            StartupError: One of them does not.
        """
        loop = asyncio.get_running_loop()
        started: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self._settings.frontends)]
        self._keepers = [
            asyncio.create_task(self._keep(number, future)) for number, future in enumerate(started, start=1)
        ]
        await asyncio.gather(*started)
        return self._ports

    async def drain(self) -> None:
        """Have all front-ends refuse new calls, finish those under way, and end."""
        self._state.drain()
        self._draining.set()
        for front_end in self._running:
            front_end.send(Drain())
        with suppress(TimeoutError):
            settings = self._settings
            most = max(settings.drain_seconds, settings.linger_seconds) + settings.trace_flush_seconds + END_SECONDS
            async with asyncio.timeout(most):
                await asyncio.gather(*self._keepers)

    async def serve(self, encoder: Encoder) -> None:
        """See `OtherProcesses.serve`."""
        served = Served(encoder.instance, write_encoder(encoder, self._statistics.row(encoder)))
        await self._tell(served)

    async def withdraw(self, encoder: Encoder) -> None:
        """See `OtherProcesses.withdraw`."""
        self._releasing[encoder.instance] = [one.owes(Released, encoder.instance) for one in self._running]
        await self._tell(Retired(encoder.instance))

    async def until_released(self, encoder: Encoder) -> None:
        """See `OtherProcesses.until_released`."""
        for released in self._releasing.pop(encoder.instance):
            await released

    def list(self) -> None:
        """See `OtherProcesses.list`."""
        listed = Listed(write_listing(self._encoders, self._state.broken))
        for front_end in self._running:
            front_end.send(listed)

    async def _tell(self, change: Served | Retired) -> None:
        """Tell all that run now, and wait until they have followed; those that start later know."""
        followed = [one.owes(Followed, change.number) for one in self._running]
        for one in self._running:
            one.send(change)
        for answer in followed:
            await answer

    def _setup(self) -> Setup:
        return Setup(write_setup(self._encoders, self._settings, self._ports, self._statistics.row, self._state.broken))

    def _look(self) -> None:
        """Note what keeps calls from being taken; new connections go to all front-ends alike, so each must be able."""
        obstacle = next(
            (f"front-end {one.number}: {one.obstacle}" for one in self._running if one.obstacle),
            "" if self._listening else "no front-end takes calls",
        )
        self._state.set_obstacle("front-ends", obstacle)

    async def _tell_health(self) -> None:
        """Let front-ends tell their callers whether the engines work."""
        while True:
            change = self._state.next_change
            for front_end in self._running:
                front_end.send(Health(self._state.unhealthy))
            await change.wait()

    async def _keep(self, number: int, started: "asyncio.Future[None]") -> None:
        """Keep one front-end running until the server drains."""
        pause = RESTART_SECONDS
        loop = asyncio.get_running_loop()
        while not self._draining.is_set():
            start = loop.time()
            try:
                how = await self._live(number, started)
            except OSError as error:
                how = str(error)
            if self._draining.is_set():
                return
            if not started.done():
                started.set_exception(StartupError(f"front-end {number} did not start: {how}"))
                return
            pause = RESTART_SECONDS if loop.time() - start > SETTLED_SECONDS else pause
            logger.error("front-end %d ended (%s); starting it again", number, how)
            self._metrics.frontend_restarts.inc()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._draining.wait()
            pause = min(2 * pause, LONGEST_RESTART_SECONDS)

    async def _live(self, number: int, started: "asyncio.Future[None]") -> str:
        """One life of a front-end; returns how it ended."""
        front_end = FrontEnd(
            number,
            next(self._lives),
            self._compute,
            self._encoders,
            self._orders,
            self._metrics,
            self._text,
            self._look,
        )
        assert self._statistics.descriptor is not None
        await front_end.start(self._settings.frontend_memory_mib << 20, self._statistics.descriptor, self._setup)
        # What is told to all running ones goes to this one, too, from now on.
        self._running.add(front_end)
        front_end.send(Health(self._state.unhealthy))
        if self._draining.is_set():
            front_end.send(Drain())
        listening = asyncio.create_task(self._note_start(front_end, started))
        try:
            return await front_end.wait(SILENT_CHECKS * self._settings.health_seconds)
        finally:
            listening.cancel()
            self._running.discard(front_end)

    async def _note_start(self, front_end: FrontEnd, started: "asyncio.Future[None]") -> None:
        await front_end.listening.wait()
        if not started.done():
            started.set_result(None)
        else:
            logger.info("front-end %d takes calls", front_end.number)
