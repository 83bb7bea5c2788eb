"""The server's life: load and prove the encoders, take calls, drain."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn, Protocol

from birnn_bundle.onnxruntime import ort
from birnn_service.access import Access
from birnn_service.catalog import Catalog, Encoders, label_of
from birnn_service.descriptors import DescriptorWatch, raise_limit
from birnn_service.front import Front
from birnn_service.frontends.front_ends import FrontEnds
from birnn_service.health import HealthMonitor
from birnn_service.http import HttpServer
from birnn_service.local_compute import LocalCompute
from birnn_service.observe.batch_spans import BatchSpans
from birnn_service.observe.call_observer import CallObserver
from birnn_service.observe.loop_lag import LoopLag
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.metrics_text import CollectedText
from birnn_service.observe.process_metrics import read_process
from birnn_service.observe.tracing import Tracing
from birnn_service.protocols.rpc_methods import rpc_methods
from birnn_service.queueing.batch_statistics import BatchStatistics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.observer import Observer
from birnn_service.queueing.queue_metrics import QueueMetrics, read_queue
from birnn_service.rate_limits import RateLimits
from birnn_service.repository.publisher import Publisher
from birnn_service.repository.repository import Repository
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.response_cache import ResponseCache
from birnn_service.settings import Settings
from birnn_service.sources.opening import open_source
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.tenants import TenantLabels
from birnn_service.transports.certificate import Certificate
from birnn_service.transports.grpc_transport import takes_native
from birnn_service.transports.shared_port import Ports
from birnn_service.transports.socket_address import in_address
from birnn_service.trust import read_trust

logger = logging.getLogger(__name__)


class TakesCalls(Protocol):
    """Where calls come in: this process, or several in front of it."""

    async def listen(self) -> Ports:
        """Begin to take calls; returns where."""

    async def drain(self) -> None:
        """Refuse new calls, let those under way finish, and close."""


class Server:
    """One server: the process that owns the engines, and where calls come in."""

    def __init__(self, settings: Settings) -> None:
        """Prepare a server.

        Raises:
            StartupError: The file of tokens or the source of encoders cannot be used, or spans cannot be exported.
        """
        self._settings = settings
        self._access = Access(settings)
        self._metrics = Metrics()
        self._metrics.describe_server(ort.__version__)
        self._metrics.tenants.labels = TenantLabels(lambda: self._access.grants.by_name)
        self._metrics.rpc_durations.methods = rpc_methods()
        read_process(self._metrics)
        self._metrics.frontends_wanted.read_one(lambda: settings.frontends)
        self._state = ServingState()
        self._encoders: Catalog[ServedEncoder] = Catalog(candidates=settings.candidates)
        self._statistics = Statistics((), 1 + settings.frontends)
        self._tracing = Tracing.of(settings, self._metrics)
        observers: list[Observer] = [QueueMetrics(self._metrics), BatchStatistics(self._statistics)]
        if self._tracing is not None:
            observers.append(BatchSpans(self._tracing))
        self._dispatcher = Dispatcher(
            observers=observers,
            max_backlog_seconds=settings.max_backlog_seconds,
            weight_of=self._access.weight_of,
        )
        read_queue(self._metrics, self._dispatcher, settings.max_backlog_seconds)
        self._cache = ResponseCache(settings.cache_mib << 20)
        self._publisher = Publisher(
            self._encoders, self._dispatcher, self._statistics, self._cache, self._state, self._metrics
        )
        # Once before all bundles, so that a file that cannot be used is one error.
        read_trust(settings.trust)
        source = open_source(settings.models, settings.store_options)
        self._repository = Repository(source, settings, self._encoders, self._publisher, self._state, self._metrics)
        self._monitor: HealthMonitor | None = None
        self._stop = asyncio.Event()

    async def load(self) -> Encoders[ServedEncoder]:
        """Load and prove what is to be served, and take no calls.

        Raises:
            StartupError: Nothing can be served.
        """
        await self._repository.start()
        return self._encoders

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises:
            StartupError: A port is taken, no encoder can be served, a front-end does not start, or the process may open
                too few files.
        """
        raise_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        settings = self._settings
        certificate = Certificate.of(settings)
        self._metrics.certificate_not_after_seconds.read_one(lambda: certificate.not_after if certificate else 0.0)
        if settings.tls_client_ca is not None and settings.tokens is None and settings.jwks is None:
            logger.warning(
                "everyone who reaches the metrics port can read /metrics, with the names of encoders and callers; with "
                "--tokens or --jwks it needs the right `metrics`"
            )
        http = HttpServer(
            settings.host,
            settings.metrics_port,
            self._metrics.registry,
            self._access,
            live=lambda: self._live,
            ready=lambda: self._state.ready,
            tls=None if certificate is None else certificate.for_metrics(),
        )
        http.start()
        watches = [asyncio.create_task(self._access.watch())]
        try:
            settings.grpc_address.check()
            takes_native(settings)
            if settings.http_address is not None:
                settings.http_address.check()
            await self._load()
            async with self._exporting(), self._computing(), self._taking_calls() as front:
                ports = await front.listen()
                self._state.start()
                # What is loaded stays: collections that walk all of it keep calls waiting for nothing.
                gc.collect()
                gc.freeze()
                self._announce(ports, http.port)
                lag = LoopLag(self._metrics.loop_lag_seconds.labels(self._metrics.process))
                works = (DescriptorWatch(self._metrics, self._state).run(), lag.run(), self._repository.run())
                watches += map(asyncio.create_task, works)
                await self._stop.wait()
                await front.drain()
                logger.info("stopped")
        finally:
            for watch in watches:
                watch.cancel()
            http.stop()
        if self._repository.is_loading:
            _end_without_waiting()

    def stop(self) -> None:
        """Begin to drain; a second signal then kills the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # Python's own way with SIGINT is an exception somewhere within the drain.
            signal.signal(number, signal.SIG_DFL)
        self._stop.set()

    async def _load(self) -> None:
        """Load the encoders; told to stop meanwhile, end at once: there is nothing to drain."""
        loading = asyncio.create_task(self.load())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            stopping.cancel()
            loading.result()
            return
        logger.info("stopped while encoders were loaded")
        _end_without_waiting()

    @property
    def _live(self) -> bool:
        return self._state.live and (self._monitor is None or self._monitor.awake)

    @asynccontextmanager
    async def _exporting(self) -> AsyncIterator[None]:
        """Export spans, if any, and at the end those that are left."""
        if self._tracing is None:
            yield
            return
        self._tracing.start()
        try:
            yield
        finally:
            await self._tracing.close()

    @asynccontextmanager
    async def _computing(self) -> AsyncIterator[None]:
        """Watch over the health of the engines, and stop them at the end."""
        settings = self._settings
        self._monitor = HealthMonitor(
            self._encoders,
            self._dispatcher,
            self._state,
            self._metrics,
            interval=settings.health_seconds,
            patience=settings.max_backlog_seconds + settings.health_seconds,
        )
        watch = asyncio.create_task(self._monitor.run())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._monitor = None
            self._dispatcher.close()

    @asynccontextmanager
    async def _taking_calls(self) -> AsyncIterator[TakesCalls]:
        """Where calls come in, by the settings."""
        settings, state, metrics, statistics = self._settings, self._state, self._metrics, self._statistics
        encoders, orders, limits = self._encoders, self._repository, RateLimits(lambda: self._access.grants)
        compute = LocalCompute(self._dispatcher, self._cache, metrics, statistics, limits)
        if settings.frontends:
            async with FrontEnds(encoders, compute, orders, state, settings, metrics, statistics) as front_ends:
                self._publisher.others = front_ends
                yield front_ends
        else:
            metrics.frontends.read_one(lambda: 0)
            text, observer = CollectedText(metrics.registry), CallObserver.of(settings, self._tracing)
            front = Front(encoders, compute, orders, state, settings, metrics, statistics, self._access, text, observer)
            try:
                yield front
            finally:
                front.close()

    def _announce(self, ports: Ports, metrics_port: int) -> None:
        served, host = ", ".join(map(label_of, self._encoders)), in_address(self._settings.host)
        count, tls = self._settings.frontends, "s" if self._settings.tls_cert else ""
        logger.info(
            "serving %s on %s:%d (gRPC%s%s)%s, metrics on http%s://%s:%d/metrics",
            served, host, ports.grpc, " with TLS" if tls else "", f", {count} front-ends" if count else "",
            "" if ports.http is None else f" and http{tls}://{host}:{ports.http}", tls, host, metrics_port,
        )  # fmt: skip


def _end_without_waiting() -> NoReturn:
    """End this process; an orderly exit would wait for the thread that loads an encoder, which nothing can stop."""
    logging.shutdown()
    os._exit(0)
