"""What can go wrong in the server, with no transport in it; each error knows its code."""

import enum
from typing import ClassVar

from birnn_bundle.quoting import one_line

MOST_CHARACTERS = 1000


class Code(enum.IntEnum):
    """The outcome of a call, as a code of google.rpc. Metrics use its name; other transports map it."""

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


LOOKUPS = (
    Code.CANCELLED, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED,
    Code.INTERNAL, Code.UNAVAILABLE, Code.UNAUTHENTICATED,
)  # fmt: skip
"""With which calls to encoders may end before their encoder is found."""
ANSWERS = (
    Code.OK, Code.CANCELLED, Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL,
    Code.UNAVAILABLE,
)  # fmt: skip
"""With which they may end after that."""


class Reason(enum.StrEnum):
    """Why a call was refused, as metrics count it.

    Attributes:
        text: What it means.
        of_encoder: Whether calls are refused for it after their encoder was found.
    """

    text: str
    of_encoder: bool

    def __new__(cls, value: str, text: str, of_encoder: bool = False) -> "Reason":
        """A reason, by its name in labels."""
        self = str.__new__(cls, value)
        self._value_, self.text, self.of_encoder = value, text, of_encoder
        return self

    QUEUE = "queue", "as much work waits as may wait (--max-backlog-seconds)", True
    DEADLINE = "deadline", "its deadline cannot be met", True
    EXPIRED = "expired", "its deadline passed while it waited", True
    MEMORY = "memory", "other calls hold the memory (--memory-mib, --frontend-memory-mib)", True
    RATE = "rate", "its caller has sent more than it may", True
    DRAINING = "draining", "the server is shutting down", True
    CALLS = "calls", "too many calls are under way (--max-calls)"
    SIZE = "size", "it is larger than this server reads (--max-message-mib)"
    LOADING = "loading", "its encoder is being loaded"
    BROKEN = "broken", "its encoder could not be loaded"
    CREDENTIALS = "credentials", "its caller has not proven who it is"
    RIGHT = "right", "its caller may not do this"
    ORDERS = "orders", "too many orders to load are waiting"


REFUSALS = tuple(reason for reason in Reason if reason.of_encoder)
"""Why calls are refused after their encoder was found."""


class StartupError(Exception):
    """The server cannot start; the message says what to change."""


class ServiceError(Exception):
    """A request failed as a whole; the message says what was wrong, the limit, and what to do."""

    code: ClassVar[Code]
    reason: Reason | None = None
    """Why the call was refused; None for what is no refusal."""
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
    reason = Reason.SIZE


class UnauthenticatedError(ServiceError):
    """The caller must say who it is."""

    code = Code.UNAUTHENTICATED
    reason = Reason.CREDENTIALS


class ForbiddenError(ServiceError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED
    reason = Reason.RIGHT

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
    """There is no room; `retry_after` is when it is predicted that there will be, in seconds."""

    code = Code.RESOURCE_EXHAUSTED
    reason: Reason

    def __init__(self, message: str, retry_after: float, reason: Reason) -> None:
        """Refuse a call for want of what `reason` says."""
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = reason


class RateLimitedError(OverloadedError):
    """The caller has sent more than it may; `retry_after` is when there is room for this request, in seconds."""

    def __init__(self, message: str, retry_after: float, reason: Reason = Reason.RATE) -> None:
        super().__init__(message, retry_after, reason)


class DeadlineError(ServiceError):
    """The request's deadline cannot be met, so it was dropped before it was computed."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE


class ExpiredError(DeadlineError):
    """The request's deadline passed while it waited."""

    reason = Reason.EXPIRED


class UnavailableError(ServiceError):
    """The server is starting or draining, or the encoder is not ready."""

    code = Code.UNAVAILABLE


class DrainingError(UnavailableError):
    """The server is shutting down."""

    reason = Reason.DRAINING


class CancelledRequestError(ServiceError):
    """The caller has cancelled the request."""

    code = Code.CANCELLED


class LoadingError(UnavailableError):
    """The encoder is being loaded."""

    retry_after = 1.0
    reason = Reason.LOADING


class BrokenEncoderError(UnavailableError):
    """The encoder is there but could not be loaded; the same call fails again until its files change."""

    retry_after = -1.0
    reason = Reason.BROKEN


class EngineError(ServiceError):
    """The engine failed on a batch."""

    code = Code.INTERNAL


class UnexpectedError(ServiceError):
    """A fault of the server; its log says more."""

    code = Code.INTERNAL
