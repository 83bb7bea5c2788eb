"""From the service's errors to gRPC's status, in one place."""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from birnn_service.errors import ServiceError


async def fail(context: grpc.aio.ServicerContext, error: ServiceError) -> NoReturn:
    """End a call with the status of `error`, which carries google.rpc.RetryInfo and gRPC's own push-back where it can.

    Raises:
        grpc.aio.AbortError: Always; this is how gRPC ends a call.
    """
    metadata: list[tuple[str, str | bytes]] = list(context.trailing_metadata())
    if error.retry_after > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(retry)
        status = status_pb2.Status(code=error.code, message=error.message, details=[detail])
        metadata.append(("grpc-status-details-bin", status.SerializeToString()))
        # Clients with a retry policy wait this long by themselves.
        metadata.append(("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))))
    elif error.retry_after < 0:
        # gRPC's sign for "do not try again": the answer stays the same, and the caller should hear the reason now.
        metadata.append(("grpc-retry-pushback-ms", "-1"))
    await context.abort(grpc.StatusCode[error.code.name], error.message, tuple(metadata))
    raise AssertionError("abort always raises")
