"""From domain errors to gRPC status codes, in one place."""

import logging
import time
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from birnn_bundle.quoting import one_line
from birnn_service import errors
from birnn_service.catalog import Encoder
from birnn_service.metrics import Metrics

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 1000

CODES: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownEncoderError: grpc.StatusCode.NOT_FOUND,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.BrokenEncoderError: grpc.StatusCode.UNAVAILABLE,
    errors.EngineError: grpc.StatusCode.INTERNAL,
}


def deadline_of(context: grpc.aio.ServicerContext) -> float | None:
    """When the caller gives up, on `time.monotonic`; None where it never does."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


async def fail(context: grpc.aio.ServicerContext, error: errors.ServiceError) -> NoReturn:
    """End a call with the status of `error`; overload carries google.rpc.RetryInfo and gRPC's own push-back."""
    code = CODES[type(error)]
    # Clients refuse a status of more than 8 KiB, and would tell their callers that instead.
    message = one_line(str(error), MOST_CHARACTERS)
    metadata: list[tuple[str, str | bytes]] = []
    if isinstance(error, errors.OverloadedError):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(retry)
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=message, details=[detail])
        metadata.append(("grpc-status-details-bin", status.SerializeToString()))
        # Clients with a retry policy wait this long by themselves.
        metadata.append(("grpc-retry-pushback-ms", str(round(error.retry_after * 1000))))
    if isinstance(error, errors.BrokenEncoderError):
        # gRPC's sign for "do not try again": here the answer stays the same, and the caller should hear the reason now.
        metadata.append(("grpc-retry-pushback-ms", "-1"))
    await context.abort(code, message, tuple(metadata))
    raise AssertionError("abort always raises")


class CallRecord:
    """Counts one call and times it, whatever becomes of it."""

    def __init__(self, metrics: Metrics, method: str) -> None:
        self._metrics = metrics
        self._method = method
        self._start = time.perf_counter()
        # Unknown names are not labels: a caller could make as many as it likes.
        self.encoder = ""
        self.code = grpc.StatusCode.UNKNOWN

    def __enter__(self) -> "CallRecord":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and self.code is grpc.StatusCode.UNKNOWN:
            self.code = grpc.StatusCode.CANCELLED if not issubclass(kind, Exception) else grpc.StatusCode.INTERNAL
        self._metrics.count_call(self.encoder, self._method, self.code.name, self.seconds)

    def name(self, encoder: Encoder) -> None:
        """Note which encoder answers."""
        self.encoder = encoder.manifest.name

    @property
    def seconds(self) -> float:
        """Time since the call's arrival."""
        return time.perf_counter() - self._start

    async def fail(self, context: grpc.aio.ServicerContext, error: errors.ServiceError) -> NoReturn:
        """Note the error's code and end the call with it."""
        self.code = CODES[type(error)]
        await fail(context, error)
