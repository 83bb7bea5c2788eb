"""What the dispatcher tells others about its work."""

from typing import Protocol

from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run


class Observer(Protocol):
    """Is told what happened, and decides nothing. Called on the event loop, so every method must be short."""

    def shared(self, request: Request, sequences: int) -> None:
        """A number of `sequences` of a new request equal others in flight and are not computed again."""

    def answered(self, request: Request, queue: float) -> None:
        """A request got its encodings; `queue` is the time in seconds from its arrival to the start of its last run."""

    def ended(self, run: Run, seconds: float, error: Exception | None) -> None:
        """A run has freed its slots after `seconds`, with an `error` if it failed. Its requests have no answer yet."""

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """A run succeeded after `seconds`, where `predicted` were expected."""
