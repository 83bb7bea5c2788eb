"""Where the calls of one process come in: its protocols, their endpoint, and what listens."""

import asyncio
import logging
from collections.abc import Sequence

from birnn_service.access import Access
from birnn_service.call import Exchange, Feed, Method
from birnn_service.catalog import Encoder, Encoders
from birnn_service.compute import Compute
from birnn_service.endpoint import Endpoint
from birnn_service.observe.call_observer import CallObserver
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.metrics_text import MetricsText
from birnn_service.pipeline import Pipeline
from birnn_service.protocols import encoder, health, reflection
from birnn_service.protocols.openai.service import OpenAIProtocol
from birnn_service.protocols.openinference import service as openinference
from birnn_service.protocols.openinference.http_service import InferenceOverHttp
from birnn_service.protocols.openinference.service import InferenceProtocol
from birnn_service.protocols.page.service import PageProtocol
from birnn_service.repository.orders import Orders
from birnn_service.settings import Settings
from birnn_service.shadow import ShadowedPipeline
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.transports.certificate import Certificate
from birnn_service.transports.grpc_server import GRACE_SECONDS
from birnn_service.transports.grpc_transport import GrpcTransport, takes_native
from birnn_service.transports.http_app import HttpApp
from birnn_service.transports.http_message import limits_of as http_limits
from birnn_service.transports.http_server import HttpServer
from birnn_service.transports.shared_port import Ports

logger = logging.getLogger(__name__)

SERVICES = (encoder.SERVICE, openinference.SERVICE)


class Front:
    """Takes calls in this process, over all protocols and transports."""

    def __init__(
        self,
        encoders: Encoders[Encoder],
        compute: Compute,
        orders: Orders,
        state: ServingState,
        settings: Settings,
        metrics: Metrics,
        statistics: Statistics,
        access: Access,
        text: MetricsText,
        observer: CallObserver | None,
        *,
        share_port: bool = False,
    ) -> None:
        """Prepare to take calls.

        Args:
            encoders: What is served.
            compute: What computes their requests.
            orders: Carries out operators' orders.
            state: Whether calls are taken.
            settings: Addresses and limits.
            metrics: Where calls are counted.
            statistics: Where they are counted, too, for the whole server.
            access: Who may call.
            text: What callers get of all counts of the server.
            observer: Traces and logs calls, if anything does.
            share_port: Let other processes of this user take calls on the same port.
        """
        self._state = state
        self._settings = settings
        joint, _ = takes_native(settings)
        self._pipeline = (
            ShadowedPipeline(compute, settings, metrics, encoders, joint=joint)
            if settings.shadow
            else Pipeline(compute, settings, metrics, joint=joint)
        )
        self._endpoint = Endpoint(encoders, state, settings, metrics, statistics, access, observer)
        inference = InferenceProtocol(encoders, orders, state, self._pipeline, settings, statistics)
        services: dict[str, Sequence[Method | Feed | Exchange]] = {
            encoder.SERVICE: encoder.EncoderProtocol(encoders, state, self._pipeline, settings).methods(),
            openinference.SERVICE: inference.methods(),
            health.SERVICE: health.HealthProtocol(state, SERVICES).methods(),
        }
        if settings.describes:
            services[reflection.SERVICE] = reflection.ReflectionProtocol(services).methods()
        self._grpc = GrpcTransport(self._endpoint, services, settings, share_port=share_port)
        over_http = [
            InferenceOverHttp(inference, state, settings).methods(),
            OpenAIProtocol(encoders, state, self._pipeline, settings).methods(),
        ]
        if settings.page:
            over_http.insert(0, PageProtocol(text, settings, lambda: self._grpc_port).methods())
        app = HttpApp(self._endpoint, *over_http, cors_origins=settings.cors)
        taken = [method for methods in services.values() for method in methods]
        if settings.http_address is not None:
            taken += [method for protocol in over_http for method in protocol.methods.values()]
        metrics.take_calls(list(dict.fromkeys(method.name for method in taken if _encodes(method))))
        self._http = HttpServer(app.answer, http_limits(settings), cors_origins=settings.cors)
        refused = metrics.connections_refused
        refused.read_one(self._grpc.refused_connections, metrics.process, "grpc")
        refused.read_one(self._http.refused_connections, metrics.process, "http")
        self._share_port = share_port
        self._grpc_port = settings.grpc_port

    async def listen(self) -> Ports:
        """Begin to take calls.

        Returns:
            Where.

        Raises:
            StartupError: A port is taken, the address is not this machine's, or the certificate cannot be used.
        """
        certificate = Certificate.of(self._settings)
        address = self._settings.http_address
        http = None
        if address is not None:
            listener = address.listen(share=self._share_port)
            http = listener.getsockname()[1]
            await self._http.listen(listener, None if certificate is None else certificate.for_http())
        self._grpc_port = await self._grpc.listen(certificate)
        return Ports(self._grpc_port, http)

    async def drain(self) -> None:
        """Send clients away, refuse calls that still come, let those under way finish, and close."""
        await self._grpc.leave()
        self._state.drain()
        self._http.drain()
        # What comes while the port closes is lost. Until then callers hear that they must turn to another server.
        linger = asyncio.create_task(asyncio.sleep(self._settings.linger_seconds))
        logger.info("draining %d calls, for at most %g s", self._endpoint.under_way, self._settings.drain_seconds)
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._endpoint.drain()
        except TimeoutError:
            logger.warning("%d calls did not finish in time and are cut off", self._endpoint.under_way)
        await linger
        # Or those who watch it would keep gRPC waiting for its whole grace.
        self._state.close()
        await asyncio.gather(self._grpc.close(), self._http.close(GRACE_SECONDS))

    def close(self) -> None:
        """End its threads."""
        self._pipeline.close()


def _encodes(method: Method | Feed | Exchange) -> bool:
    """Whether calls of a method are about an encoder."""
    inner = method.method if isinstance(method, Exchange) else method
    return isinstance(inner, Method) and inner.encoder is not None
