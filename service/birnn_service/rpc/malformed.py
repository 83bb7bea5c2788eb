"""Requests that are no messages: bytes that protobuf cannot parse, a string field that is not UTF-8."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from birnn_service.errors import InvalidRequestError
from birnn_service.metrics import Metrics
from birnn_service.rpc.status import fail


class ParsingServer:
    """The server as generated code sees it, when it registers a service's methods.

    Their handlers then answer INVALID_ARGUMENT to what cannot be parsed; gRPC itself answers UNKNOWN and logs a
    traceback for each. An interceptor could do the same, with two more coroutines a call; it was not measurably slower.
    """

    def __init__(self, server: grpc.aio.Server, metrics: Metrics) -> None:
        """Register handlers with `server`, and count what cannot be parsed."""
        self._server = server
        self._metrics = metrics

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the same handlers are registered by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the methods of a service."""
        wrapped = {
            method: self._wrap(method, handler) if handler.unary_unary is not None else handler
            for method, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        def parse(raw: bytes) -> Any:
            try:
                return handler.request_deserializer(raw)
            except DecodeError as error:
                # Handed on, as there is no call to fail here.
                return error

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if isinstance(request, DecodeError):
                self._metrics.requests.labels("", method, grpc.StatusCode.INVALID_ARGUMENT.name).inc()
                await fail(context, InvalidRequestError(f"the request is no {method} message: {request}"))
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, parse, handler.response_serializer)
