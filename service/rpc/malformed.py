"""Requests that are no messages: bytes that protobuf cannot parse, a string field that is not UTF-8."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.errors import InvalidRequestError
from service.metrics import Metrics
from service.rpc.status import fail

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class MalformedRequestInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Answers INVALID_ARGUMENT to what cannot be parsed; gRPC itself answers UNKNOWN and logs a traceback for each."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a call, made to survive bytes that it cannot parse."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None or handler.unary_unary is None:
                return handler
            self._wrapped[method] = self._wrap(handler, method.rpartition("/")[2])
        return self._wrapped[method]

    def _wrap(self, handler: Any, method: str) -> grpc.RpcMethodHandler:
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
