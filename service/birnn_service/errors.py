"""What can go wrong in the server, with no gRPC in it; `birnn_service/rpc/status.py` maps these to status codes."""


class StartupError(Exception):
    """The server cannot start; the message says what to change."""


class ServiceError(Exception):
    """A request failed as a whole; the message says what was wrong, the limit, and what to do."""


class InvalidRequestError(ServiceError):
    """The caller must change the request."""


class UnknownEncoderError(ServiceError):
    """No such encoder or version."""


class OverloadedError(ServiceError):
    """The queue is full; `retry_after` is when it is predicted to have room, in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(ServiceError):
    """The request's deadline cannot be met, so it was dropped before it was computed."""


class UnavailableError(ServiceError):
    """The server is starting or draining, or the encoder is not ready."""


class BrokenEncoderError(UnavailableError):
    """The encoder is there but could not be loaded; the same call fails again until the server is started anew."""


class EngineError(ServiceError):
    """The engine failed on a batch."""
