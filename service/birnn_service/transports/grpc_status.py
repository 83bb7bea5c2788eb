"""From the service's errors to gRPC's status, in one place."""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from birnn_service.errors import ServiceError


def metadata_of(error: ServiceError) -> list[tuple[str, str | bytes]]:
    """What goes with the status of an error: google.rpc.RetryInfo and gRPC's own push-back, where it can."""
    if error.retry_after > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(retry)
        status = status_pb2.Status(code=error.code, message=error.message, details=[detail])
        return [
            ("grpc-status-details-bin", status.SerializeToString()),
            # Clients with a retry policy wait this long by themselves.
            ("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))),
        ]
    if error.retry_after < 0:
        # gRPC's sign for "do not try again": the answer stays the same, and the caller should hear the reason now.
        return [("grpc-retry-pushback-ms", "-1")]
    return []


async def fail(context: grpc.aio.ServicerContext, error: ServiceError) -> NoReturn:
    """End a call of grpcio's with the status of `error`.

    Raises:
        grpc.aio.AbortError: Always; this is how gRPC ends a call.
    """
    metadata: tuple[tuple[str, str | bytes], ...] = (*context.trailing_metadata(), *metadata_of(error))
    await context.abort(grpc.StatusCode[error.code.name], error.message, metadata)
    raise AssertionError("abort always raises")
