"""What listens for gRPC: grpcio's server for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc

from birnn_service.call import Exchange, Feed, Method
from birnn_service.endpoint import Endpoint
from birnn_service.errors import ServiceError
from birnn_service.settings import Settings
from birnn_service.transports.arrivals import Arrivals
from birnn_service.transports.departures import Departures
from birnn_service.transports.grpc_call import GrpcCall
from birnn_service.transports.grpc_status import fail
from birnn_service.transports.socket_address import SocketAddress

# Calls that may wait to be looked at, beside those that may be under way. Each takes some 10 KiB, and is answered or
# refused within a fraction of a millisecond.
PENDING = 20_000
# How long late calls are kept waiting before and after connections begin to close.
HOLD_SECONDS = 0.1
# How long the last replies may take to be sent.
GRACE_SECONDS = 1.0

Services = Mapping[str, Sequence[Method | Feed | Exchange]]
"""Methods by the full name of their service."""


def by_path(services: Services) -> dict[str, Method | Feed | Exchange]:
    """All methods, by the path by which gRPC calls them."""
    return {f"/{service}/{method.name}": method for service, methods in services.items() for method in methods}


class GrpcServer:
    """Takes calls over gRPC and hands them to an endpoint.

    Methods are registered as if they took a stream of requests, which is the same on the wire: so a call can be refused
    before its request is read, and a request's memory is free as soon as nothing needs it. gRPC keeps the request of
    a unary method until its reply has been sent.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        services: Services,
        address: SocketAddress,
        settings: Settings,
        *,
        share_port: bool = False,
    ) -> None:
        """Take calls to `services`.

        Args:
            endpoint: Where calls go.
            services: What can be called.
            address: Where to listen.
            settings: Limits.
            share_port: Let other processes of this user take calls on the same port.
        """
        self._endpoint = endpoint
        self._address = address
        self._arrivals = Arrivals(settings.process_memory_bytes, settings.max_request_seconds)
        self._departures = Departures(settings.max_reply_seconds)
        # Clear while connections close: calls that come then wait.
        self._open = asyncio.Event()
        self._open.set()
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
                # gRPC drops calls as CANCELLED if more than this number wait to be looked at. Calls refused by the
                # endpoint get a reason and a time to retry.
                ("grpc.server.max_pending_requests", settings.max_calls + PENDING),
                ("grpc.server.max_pending_requests_hard_limit", settings.max_calls + PENDING),
            ],
        )
        handlers = {path: self._handler(method) for path, method in by_path(services).items()}
        self._server.add_generic_rpc_handlers([_Handlers(handlers)])

    async def listen(self, credentials: grpc.ServerCredentials | None = None) -> int:
        """Begin to take calls; without credentials in the clear.

        Returns:
            The port.

        Raises:
            StartupError: It is taken, or the address is not this machine's.
        """
        address, server = self._address, self._server
        place = str(address)
        try:
            port: int = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
        except RuntimeError as error:
            raise address.refused("the port is taken or not allowed") from error
        await server.start()
        return port

    async def close(self) -> None:
        """Close the port and all connections, and let what is computed be sent.

        gRPC answers CANCELLED to calls that come between the beginning of `stop` and the moment when a client hears of
        it. So callers who repeat their calls are kept waiting until then, and hear UNAVAILABLE, too.
        """
        self._open.clear()
        await asyncio.sleep(HOLD_SECONDS)
        stopping = asyncio.create_task(self._server.stop(GRACE_SECONDS))
        await asyncio.sleep(HOLD_SECONDS)
        self._open.set()
        await stopping

    def _handler(self, method: Method | Feed | Exchange) -> grpc.RpcMethodHandler:
        if isinstance(method, Exchange):
            return grpc.stream_stream_rpc_method_handler(self._exchange(method))
        if isinstance(method, Feed):
            return grpc.stream_stream_rpc_method_handler(self._feed(method))
        return grpc.stream_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: Method) -> Callable[[Any, grpc.aio.ServicerContext], Any]:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> bytes:
            await self._open.wait()
            call = GrpcCall(context, self._arrivals, self._departures)
            try:
                reply: bytes = await self._endpoint.answer(method, call)
            except ServiceError as error:
                await fail(context, error)
            if method.encoder is not None:
                call.begin_reply()
            return reply

        return handle

    def _exchange(self, exchange: Exchange) -> Callable[[Any, grpc.aio.ServicerContext], Any]:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> None:
            await self._open.wait()
            try:
                await self._endpoint.converse(exchange, GrpcCall(context, self._arrivals, self._departures))
            except ServiceError as error:
                await fail(context, error)

        return handle

    def _feed(self, method: Feed) -> Callable[[Any, grpc.aio.ServicerContext], Any]:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            try:
                async for reply in self._endpoint.feed(method, GrpcCall(context, self._arrivals, self._departures)):
                    yield reply
            except ServiceError as error:
                await fail(context, error)

        return handle


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """All methods of a server, by path.

    Methods that are registered with grpcio one by one are waited for one by one: for each call, its server would wait
    anew on as many futures as there are methods.
    """

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a call; None for a method that is not served."""
        return self._handlers.get(handler_call_details.method)
