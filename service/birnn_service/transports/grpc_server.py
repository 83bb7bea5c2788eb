"""The gRPC server: both services, health and reflection over one encoder pool."""

import asyncio
import logging
import os
import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from birnn.v1 import encoder_pb2
from birnn.v1.encoder_pb2_grpc import add_EncoderServiceServicer_to_server
from birnn_service.endpoint import GuardedServer
from birnn_service.errors import StartupError
from birnn_service.metrics import Metrics
from birnn_service.pipeline import Pipeline
from birnn_service.protocols.encoder import EncoderService
from birnn_service.protocols.openinference.service import InferenceService
from birnn_service.settings import Settings

logger = logging.getLogger(__name__)

ENCODER_SERVICE = encoder_pb2.DESCRIPTOR.services_by_name["EncoderService"].full_name
INFERENCE_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Health of the process, for liveness probes; readiness is the health of "" and of the services by name.
LIVENESS = "liveness"
READINESS = ("", ENCODER_SERVICE, INFERENCE_SERVICE)
# Calls that may wait to be looked at, beside those that may be under way. Each takes some 10 KiB, and is answered or
# refused within a fraction of a millisecond.
PENDING = 20_000
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# How long late calls are kept waiting before and after connections begin to close.
HOLD_SECONDS = 0.1
# How long the last replies may take to be sent.
GRACE_SECONDS = 1.0


class RpcServer:
    """Takes calls in this process."""

    def __init__(self, pool: Pipeline, settings: Settings, metrics: Metrics, *, share_port: bool = False) -> None:
        """Serve `pool`.

        Args:
            pool: Where requests go.
            settings: Address and limits.
            metrics: Where calls are counted.
            share_port: Let other processes of this user take calls on the same port.
        """
        self._pool = pool
        self._settings = settings
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(
            options=[
                # Two servers on one port would share its calls without a word; better an error.
                ("grpc.so_reuseport", int(share_port)),
                ("grpc.max_receive_message_length", settings.max_message_mib << 20),
                ("grpc.max_send_message_length", -1),
                # Or gRPC would take in whole messages of fast senders, megabytes each, before anybody reads them. What
                # is being read comes as fast as before.
                ("grpc.http2.bdp_probe", 0),
                # Clients may ask every ten seconds whether we still live, or long calls would end for "too many pings".
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # One connection is one server: only those who reconnect see new replicas.
                ("grpc.max_connection_age_ms", round(settings.max_connection_seconds * 1000)),
                # Calls that have not ended by as long again are not going to.
                ("grpc.max_connection_age_grace_ms", round(settings.max_connection_seconds * 1000)),
                # Beyond so many calls that have not been looked at yet, gRPC drops them as CANCELLED. What is refused
                # here gets a reason and a time to retry.
                ("grpc.server.max_pending_requests", settings.max_calls + PENDING),
                ("grpc.server.max_pending_requests_hard_limit", settings.max_calls + PENDING),
            ],
        )
        guarded = GuardedServer(self._server, settings, metrics)
        add_EncoderServiceServicer_to_server(EncoderService(pool, metrics), guarded)
        add_GRPCInferenceServiceServicer_to_server(InferenceService(pool, settings, metrics), guarded)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        reflected = (ENCODER_SERVICE, INFERENCE_SERVICE, SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(reflected), guarded)

    @property
    def ready(self) -> bool:
        """Whether calls are welcome."""
        return self._pool.ready

    async def listen(self) -> int:
        """Begin to take calls.

        Returns:
            The port.

        Raises:
            StartupError: It is taken, or the address is not this machine's.
        """
        address = f"{self._settings.host}:{self._settings.grpc_port}"
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(cannot_listen(self._settings, "the port is taken or not allowed")) from error
        await self._server.start()
        await self._publish_health()
        return port

    async def set_healthy(self, healthy: bool) -> None:
        """Tell callers whether the engines work."""
        self._pool.healthy = healthy
        await self._publish_health()

    async def set_accepting(self, accepting: bool) -> None:
        """Tell callers whether this process can accept another connection."""
        self._pool.accepting = accepting
        await self._publish_health()

    async def drain(self) -> None:
        """Refuse new calls, let those under way finish, and close."""
        self._pool.draining = True
        await self._publish_health()
        # What comes while the port closes is lost. Until then callers hear that they must turn to another server.
        linger = asyncio.create_task(asyncio.sleep(self._settings.linger_seconds))
        logger.info("draining %d calls, for at most %g s", self._pool.under_way, self._settings.drain_seconds)
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._pool.drain()
        except TimeoutError:
            logger.warning("%d calls did not finish in time and are cut off", self._pool.under_way)
        await linger
        await self._close()

    async def _close(self) -> None:
        """Close the port and all connections, and let what is computed be sent.

        gRPC answers CANCELLED to calls that come between the beginning of `stop` and the moment when a client hears of
        it. So callers who repeat their calls are kept waiting until then, and hear UNAVAILABLE, too.
        """
        self._pool.refuses.clear()
        await asyncio.sleep(HOLD_SECONDS)
        stopping = asyncio.create_task(self._server.stop(GRACE_SECONDS))
        await asyncio.sleep(HOLD_SECONDS)
        self._pool.refuses.set()
        await stopping

    async def _publish_health(self) -> None:
        await self._health.set(LIVENESS, SERVING if self._pool.healthy else NOT_SERVING)
        for service in READINESS:
            await self._health.set(service, SERVING if self._pool.ready else NOT_SERVING)


def check_port(settings: Settings) -> None:
    """Fail before encoders are loaded where the gRPC port, which opens only after that, cannot be had.

    Raises:
        StartupError: It is taken, not allowed, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                # Connections of a server that has just ended linger, and are no reason not to start.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartupError(cannot_listen(settings, str(error.strerror))) from error


def cannot_listen(settings: Settings, reason: str) -> str:
    """What to say where the gRPC port cannot be had."""
    return (
        f"cannot listen on {settings.host}:{settings.grpc_port} for gRPC: {reason}; "
        "choose another with --grpc-port or --host"
    )
