"""What every call goes through, whatever its method: bounds before its request is read, errors that have a code."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from birnn_bundle.quoting import shown
from birnn_service.call import Call
from birnn_service.errors import InvalidRequestError, OverloadedError, ServiceError
from birnn_service.memory_budget import RETRY_SECONDS, MemoryBudget
from birnn_service.metrics import Metrics
from birnn_service.protocols.bounds import Limits, limits_of
from birnn_service.protocols.wire import check_counts
from birnn_service.settings import Settings
from birnn_service.transports.arrivals import Arrivals
from birnn_service.transports.caller import caller_of
from birnn_service.transports.departures import Departures
from birnn_service.transports.grpc_status import CODES, fail

logger = logging.getLogger(__name__)

# Memory of a call, beside what its request and its reply take.
CALL_BYTES = 32 << 10
# Memory that a request takes for each of its bytes: as it came, as protobuf's copy, as strings, as tokens, in
# batches. Measured with requests of 15 MiB: 26 for words, 16 for strings that fail one by one.
REQUEST_COST = 24


class GuardedServer:
    """The server as generated code sees it, when it registers a service's methods.

    Methods are registered as if they took a stream of requests, which is the same on the wire: so a call can be refused
    before its request is read, and a request's memory is free as soon as nothing needs it. gRPC keeps the request of
    a unary method until its reply has been sent.
    """

    def __init__(self, server: grpc.aio.Server, settings: Settings, metrics: Metrics) -> None:
        """Register handlers with `server`, within the limits of the settings."""
        self._server = server
        self._metrics = metrics
        self._limits = limits_of(settings)
        self._most_calls = settings.max_calls
        self._calls = 0
        self._budget = MemoryBudget(settings.call_memory_bytes)
        self._arrivals = Arrivals(settings.process_memory_bytes, settings.max_request_seconds)
        self._departures = Departures(settings.max_reply_seconds)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the same handlers are registered by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the methods of a service."""
        wrapped = {method: self._wrap(method, handler) for method, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        limits = self._limits.get(method)

        async def reply_once(context: grpc.aio.ServicerContext) -> bytes:
            if limits is None:
                reply = await handler.unary_unary(await self._read(method, handler, context), context)
            else:
                reply = await self._admit(method, handler, limits, context)
            return reply if isinstance(reply, bytes) else bytes(handler.response_serializer(reply))

        async def stream_replies(context: grpc.aio.ServicerContext) -> None:
            await handler.unary_stream(await self._read(method, handler, context), context)

        async def stream_both(context: grpc.aio.ServicerContext) -> None:
            async def requests() -> AsyncIterator[Any]:
                while (message := await context.read()) is not grpc.aio.EOF:
                    yield self._parse(method, handler, {}, message)

            async for reply in handler.stream_stream(requests(), context):
                await context.write(reply)

        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._with_errors(method, reply_once))
        answer = stream_replies if handler.unary_stream is not None else stream_both
        return grpc.stream_stream_rpc_method_handler(
            self._with_errors(method, answer), None, handler.response_serializer
        )

    def _with_errors(self, method: str, answer: Callable[[grpc.aio.ServicerContext], Awaitable[Any]]) -> Any:
        """A handler that ends every call that fails with a status that says why."""

        async def handle(_: object, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await answer(context)
            except ServiceError as error:
                self._metrics.requests.labels("", method, CODES[type(error)].name).inc()
                await fail(context, error)
            except grpc.aio.BaseError:  # the call has ended
                raise
            except Exception as error:
                logger.error("%s failed unexpectedly", method, exc_info=error)
                self._metrics.unexpected_errors.labels("", method).inc()
                await context.abort(
                    grpc.StatusCode.INTERNAL,
                    f"the server failed unexpectedly ({type(error).__name__}); its log says more",
                )

        return handle

    async def _admit(self, method: str, handler: Any, limits: Limits, context: grpc.aio.ServicerContext) -> Any:
        """Let a call in that takes memory and time, if there is room; it holds its place until its reply was sent."""
        if self._calls >= self._most_calls:
            raise OverloadedError(
                f"this server has {self._calls} calls under way, its limit (--max-calls); retry later",
                RETRY_SECONDS,
            )
        caller = caller_of(context.peer())
        memory = self._budget.open(caller)
        self._calls += 1

        def ended(_: object) -> None:
            self._calls -= 1
            memory.close()
            self._departures.end(context)

        context.add_done_callback(ended)
        message = await self._arrivals.read(context, caller)
        memory.take(CALL_BYTES + REQUEST_COST * len(message))
        request = self._parse(method, handler, limits, message)
        del message
        reply = await handler.unary_unary(request, Call(context, caller, memory))
        self._departures.begin(context)
        return reply

    async def _read(self, method: str, handler: Any, context: grpc.aio.ServicerContext) -> Any:
        """The request of a call of a method whose requests are small."""
        return self._parse(method, handler, {}, await self._arrivals.read(context, caller_of(context.peer())))

    def _parse(self, method: str, handler: Any, limits: Limits, message: bytes) -> Any:
        """The request that a message holds.

        Raises:
            InvalidRequestError: It holds too much, or is no such request.
        """
        check_counts(message, limits)
        try:
            return handler.request_deserializer(message)
        except DecodeError as error:
            raise InvalidRequestError(f"the request is no {method} message: {shown(str(error), 200)}") from error
