"""What can go wrong in the server, with no transport in it; each error knows its code."""

import enum
from typing import ClassVar

from birnn_bundle.quoting import one_line

MOST_CHARACTERS = 1000


class Code(enum.IntEnum):
    """What became of a call: the codes of google.rpc, by whose names metrics count. Other transports map them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class StartupError(Exception):
    """The server cannot start; the message says what to change."""


class ServiceError(Exception):
    """A request failed as a whole; the message says what was wrong, the limit, and what to do."""

    code: ClassVar[Code]
    reason: ClassVar[str] = ""
    """Why the call of a caller that is known was refused, as metrics count it; empty for what is no refusal."""
    retry_after: float = 0.0
    """Seconds after which the same call may succeed; 0 where that is not known, below 0 where it will not."""

    @property
    def message(self) -> str:
        """What to tell the caller, of bounded length: gRPC's clients refuse a status of more than 8 KiB."""
        return one_line(str(self), MOST_CHARACTERS)


class InvalidRequestError(ServiceError):
    """The caller must change the request."""

    code = Code.INVALID_ARGUMENT


class TooLargeError(ServiceError):
    """A request is larger than this server reads."""

    code = Code.RESOURCE_EXHAUSTED


class UnauthenticatedError(ServiceError):
    """The caller must say who it is."""

    code = Code.UNAUTHENTICATED


class ForbiddenError(ServiceError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "right"

    def __init__(self, message: str, caller: str = "") -> None:
        """Refuse a `caller` that has said who it is; empty where it is known already."""
        super().__init__(message)
        self.caller = caller


class UnknownEncoderError(ServiceError):
    """No such encoder or version."""

    code = Code.NOT_FOUND


class UnknownServiceError(ServiceError):
    """Health was asked for under a name that is not served here."""

    code = Code.NOT_FOUND


class OverloadedError(ServiceError):
    """The queue is full; `retry_after` is when it is predicted to have room, in seconds."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "overload"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(OverloadedError):
    """The caller has sent more than it may; `retry_after` is when there is room for this request, in seconds."""

    reason = "rate"


class DeadlineError(ServiceError):
    """The request's deadline cannot be met, so it was dropped before it was computed."""

    code = Code.DEADLINE_EXCEEDED
    reason = "deadline"


class UnavailableError(ServiceError):
    """The server is starting or draining, or the encoder is not ready."""

    code = Code.UNAVAILABLE


class CancelledRequestError(ServiceError):
    """The caller has cancelled the request."""

    code = Code.CANCELLED


class LoadingError(UnavailableError):
    """The encoder is being loaded."""

    retry_after = 1.0


class BrokenEncoderError(UnavailableError):
    """The encoder is there but could not be loaded; the same call fails again until its files change."""

    retry_after = -1.0


class EngineError(ServiceError):
    """The engine failed on a batch."""

    code = Code.INTERNAL


class UnexpectedError(ServiceError):
    """A fault of the server; its log says more."""

    code = Code.INTERNAL
