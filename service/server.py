"""The server's life: listen, load and prove the encoders, serve, drain."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import onnxruntime
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from birnn.v1 import encoder_pb2
from birnn.v1.encoder_pb2_grpc import add_EncoderServiceServicer_to_server
from service.batcher.batcher import Batcher
from service.encoders import Encoders, load_encoders
from service.errors import StartupError
from service.health import HealthMonitor
from service.http import HttpServer
from service.metrics import Metrics
from service.pool import EncoderPool
from service.rpc.encoder_service import EncoderService
from service.rpc.inference_service import InferenceService
from service.rpc.malformed import ParsingServer
from service.settings import Settings

logger = logging.getLogger(__name__)

ENCODER_SERVICE = encoder_pb2.DESCRIPTOR.services_by_name["EncoderService"].full_name
INFERENCE_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Health of the process, for liveness probes; readiness is the health of "" and of the services by name.
LIVENESS = "liveness"
READINESS = ("", ENCODER_SERVICE, INFERENCE_SERVICE)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """One server process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._metrics.describe_server(onnxruntime.__version__)
        self._health = health_aio.HealthServicer()
        self._pool: EncoderPool | None = None
        self._stop = asyncio.Event()
        self.grpc_port = 0
        self.metrics_port = 0

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises:
            StartupError: A port is taken, or no encoder can be served.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        settings = self._settings
        http = HttpServer(
            settings.host, settings.metrics_port, self._metrics, live=lambda: self._live, ready=lambda: self._ready
        )
        self.metrics_port = http.port
        http.start()
        try:
            encoders = await asyncio.to_thread(load_encoders, settings, self._metrics)
            async with self._batching(encoders) as batcher:
                self._pool = EncoderPool(encoders, batcher, settings, self._metrics)
                server = await self._listen(self._pool)
                await self._publish_health()
                self._announce(encoders)
                await self._stop.wait()
                await self._drain(server)
        finally:
            http.stop()

    def stop(self) -> None:
        """Begin to drain; a second signal then kills the process as usual."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        self._stop.set()

    @property
    def _live(self) -> bool:
        return self._pool is None or self._pool.healthy

    @property
    def _ready(self) -> bool:
        return self._pool is not None and self._pool.ready

    @asynccontextmanager
    async def _batching(self, encoders: Encoders) -> AsyncIterator[Batcher]:
        """Run the batcher and the watch over its health."""
        settings = self._settings
        batcher = Batcher(
            [lane for encoder in encoders for lane in encoder.lanes.values()],
            max(encoder.engine.info.slots for encoder in encoders),
            self._metrics,
            max_backlog_seconds=settings.max_backlog_seconds,
        )
        monitor = HealthMonitor(
            encoders,
            batcher,
            interval=settings.health_seconds,
            patience=settings.max_backlog_seconds + settings.health_seconds,
            changed=self._set_healthy,
        )
        watch = asyncio.create_task(monitor.run())
        try:
            yield batcher
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            batcher.close()

    async def _listen(self, pool: EncoderPool) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            options=[
                # Two servers on one port would share its calls without a word; better an error.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", settings.max_message_mib << 20),
                ("grpc.max_send_message_length", -1),
                # Clients may ask every ten seconds whether we still live, or long calls would end for "too many pings".
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # One connection is one server: only those who reconnect see new replicas.
                ("grpc.max_connection_age_ms", round(settings.max_connection_seconds * 1000)),
            ],
        )
        parsing = ParsingServer(server, self._metrics)
        add_EncoderServiceServicer_to_server(EncoderService(pool, self._metrics), parsing)
        add_GRPCInferenceServiceServicer_to_server(InferenceService(pool, settings, self._metrics), parsing)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, parsing)
        reflection.enable_server_reflection(
            (ENCODER_SERVICE, INFERENCE_SERVICE, SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        address = f"{settings.host}:{settings.grpc_port}"
        try:
            self.grpc_port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen on {address} for gRPC: the port is taken or the address is not this machine's; "
                "choose another with --grpc-port or --host"
            ) from error
        await server.start()
        return server

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Refuse new calls, let those under way finish, and close."""
        assert self._pool is not None
        self._pool.draining = True
        await self._publish_health()
        logger.info("draining %d calls, for at most %g s", self._pool.under_way, self._settings.drain_seconds)
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._pool.drain()
        except TimeoutError:
            logger.warning("%d calls did not finish in time and are cut off", self._pool.under_way)
        # What is computed by now still has to be sent.
        await server.stop(grace=1.0)
        logger.info("stopped")

    async def _set_healthy(self, healthy: bool) -> None:
        assert self._pool is not None
        self._pool.healthy = healthy
        await self._publish_health()

    async def _publish_health(self) -> None:
        await self._health.set(LIVENESS, SERVING if self._live else NOT_SERVING)
        for service in READINESS:
            await self._health.set(service, SERVING if self._ready else NOT_SERVING)

    def _announce(self, encoders: Encoders) -> None:
        served = ", ".join(encoder.bundle.label for encoder in encoders)
        host = self._settings.host
        logger.info(
            "serving %s on %s:%d (gRPC), metrics on http://%s:%d/metrics",
            served, host, self.grpc_port, host, self.metrics_port,
        )  # fmt: skip
