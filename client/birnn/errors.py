"""The exceptions that a failed call raises. Their messages say what to do."""

from collections.abc import Sequence
from typing import Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from birnn.encodings import ItemError
from birnn.v1 import encoder_pb2 as pb

_SHOWN_ITEMS = 5
# What gRPC says if it could not connect, as opposed to a server that answered UNAVAILABLE.
_NO_CONNECTION = ("failed to connect", "connections to all backends failing", "errors resolving", "dns resolution")
# What gRPC says if the answer was HTTP/1.
_OTHER_PROTOCOL = ("expected settings frame", "http1")
# What gRPC says if only one side uses TLS or if trust fails, and the advice for each case.
_TLS = {
    "wrong_version_number": "it does not use TLS: leave out tls (--tls, --tls-ca), or pass the port that uses it",
    "certificate_verify_failed": "its certificate is of an authority that is not trusted here, or has expired: pass "
    "that authority as tls=birnn.Tls(ca=FILE) (--tls-ca FILE)",
    "socket closed": "it ended the connection at once. Where it uses TLS, pass tls=birnn.Tls() (--tls, or --tls-ca "
    "FILE); where it asks for a certificate, also its cert and key (--tls-cert, --tls-key)",
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class EncodeError(Exception):
    """A call failed. The base class of all errors of a call.

    Attributes:
        code: The gRPC status code. None if the client itself found the error.
    """

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


class ServerUnreachableError(EncodeError):
    """The client could not connect to the server."""


class ServerUnavailableError(EncodeError):
    """The server is starting or draining, or the connection broke, and retries failed as well."""


class OverloadedError(EncodeError):
    """The server is overloaded, and retries failed as well.

    Attributes:
        retry_after: Seconds after which the server expects to have capacity. None if it did not say.
    """

    def __init__(self, message: str, code: grpc.StatusCode | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class DeadlineError(EncodeError):
    """There was no reply within `timeout`."""


class UnknownEncoderError(EncodeError):
    """The server has no such encoder or version."""


class InvalidRequestError(EncodeError):
    """The server rejected the request. It must be changed before it is sent again."""


class InconsistentReplyError(EncodeError):
    """A reply does not match its request, or the replies to one input do not match each other."""


class VersionGoneError(UnknownEncoderError):
    """The server stopped serving a version while the client was encoding an input with it."""


class FailedRequest(grpc.RpcError):  # type: ignore[misc] # whose package has no types
    """A request of a stream failed, and the stream continues.

    Attributes:
        retry_after: Seconds after which the request may succeed. 0 if unknown, negative if it will not succeed.
    """

    def __init__(self, code: grpc.StatusCode, details: str, retry_after: float = 0.0) -> None:
        super().__init__(details)
        self._code, self._details = code, details
        self.retry_after = retry_after

    @classmethod
    def of(cls, failure: pb.Failure) -> Self:
        """Convert a failure that the server sent."""
        return cls(_CODES.get(failure.code, grpc.StatusCode.UNKNOWN), failure.message, failure.retry_after)

    def code(self) -> grpc.StatusCode:
        """Return the gRPC status code."""
        return self._code

    def details(self) -> str:
        """Return the server's message."""
        return self._details


class SequenceError(EncodeError):
    """Some sequences cannot be encoded. Use `on_error` to get the vectors of the others.

    Attributes:
        errors: All failed sequences, by ascending index.
    """

    def __init__(self, errors: Sequence[ItemError], count: int) -> None:
        shown = "; ".join(f"sequence {error.index}: {error.reason}" for error in errors[:_SHOWN_ITEMS])
        more = f"; and {len(errors) - _SHOWN_ITEMS} more" if len(errors) > _SHOWN_ITEMS else ""
        hint = "drop them, or keep the others with on_error"
        super().__init__(f"{len(errors)} of {count} sequences cannot be encoded ({hint}): {shown}{more}")
        self.errors = tuple(errors)


def call_error(error: grpc.RpcError, address: str, timeout: float | None) -> EncodeError:
    """Return the exception to raise for a failed call.

    Args:
        error: The error that gRPC raised.
        address: Address of the server.
        timeout: The timeout of the call, in seconds. None for no limit.
    """
    code: grpc.StatusCode = error.code()
    details: str = error.details() or "no details"
    match code:
        case grpc.StatusCode.UNAVAILABLE if any(sign in details.lower() for sign in _OTHER_PROTOCOL):
            message = (
                f"what listens at {address} does not speak gRPC; is it the HTTP port, of metrics and health? "
                "Pass the gRPC port, 8001 by default"
            )
            return ServerUnreachableError(message, code)
        case grpc.StatusCode.UNAVAILABLE if is_no_connection(error):
            message = (
                f"no server reachable at {address} ({details}); start one with `birnn serve`, or pass the right address"
            )
            if hint := next((hint for sign, hint in _TLS.items() if sign in details.lower()), ""):
                message = f"what listens at {address} is not understood ({details}): {hint}"
            return ServerUnreachableError(message, code)
        case grpc.StatusCode.UNAVAILABLE:
            return ServerUnavailableError(f"the server at {address} is unavailable: {details}; try again later", code)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if is_too_large(error):
            message = (
                f"a message is larger than {address}, or what is between, lets through ({details}); "
                "use a smaller batch_size, or send shorter sequences"
            )
            return InvalidRequestError(message, code)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            wait = retry_after(error)
            when = "later" if wait is None else f"in {wait:.3g} s"
            return OverloadedError(f"the server at {address} is overloaded: {details}; try again {when}", code, wait)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            limit = "" if timeout is None else f" of {timeout:g} s"
            return DeadlineError(
                f"no reply from {address} within the timeout{limit} ({details}); raise it or send fewer sequences", code
            )
        case grpc.StatusCode.NOT_FOUND:
            return UnknownEncoderError(f"{details} (at {address})", code)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequestError(details, code)
        case grpc.StatusCode.UNIMPLEMENTED:
            return EncodeError(f"the server at {address} does not speak birnn.v1: {details}", code)
        case _:
            return EncodeError(f"the call to {address} failed with {code.name}: {details}", code)


def is_no_connection(error: grpc.RpcError) -> bool:
    """Return whether the client could not connect at all. False if the server answered or the connection broke."""
    return bool((error.details() or "").lower().startswith(_NO_CONNECTION))


def is_too_large(error: grpc.RpcError) -> bool:
    """Return whether a message exceeded gRPC's size limit, so that a retry cannot help."""
    return "message larger than max" in (error.details() or "")


def is_lost(error: grpc.RpcError) -> bool:
    """Return whether grpc.aio lost the reason why a stream ended, as it does during a write (grpc/grpc#36066)."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"


def is_final(error: grpc.RpcError) -> bool:
    """Return whether the server asks the client not to retry: its grpc-retry-pushback-ms is negative."""
    if isinstance(error, FailedRequest):
        return error.retry_after < 0
    return any(
        key == "grpc-retry-pushback-ms" and not (value.isascii() and value.isdecimal())
        for key, value in error.trailing_metadata() or ()
    )


def retry_after(error: grpc.RpcError) -> float | None:
    """Return the seconds after which the server asks for a retry (google.rpc.RetryInfo). None if it does not say."""
    if isinstance(error, FailedRequest):
        return error.retry_after if error.retry_after > 0 else None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            info = error_details_pb2.RetryInfo()
            for detail in status.details:
                if detail.Unpack(info):
                    return float(info.retry_delay.seconds + info.retry_delay.nanos * 1e-9)
    return None
