"""Decides when a failed call is repeated. It does no I/O, and both clients use it."""

import logging
import random
import time
from dataclasses import dataclass, field

import grpc

from birnn.errors import call_error, is_final, is_no_connection, is_too_large, retry_after

RETRY_FOR = 30.0
"""Default time for which a call is repeated while the server is unavailable, in seconds. A restart takes less."""
UNREACHABLE_FOR = 3.0
"""The same limit for a server that this client has never reached, in seconds. Its address is probably wrong."""
OVERLOAD_RETRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
# The client logs a warning if the server is unavailable for this many seconds.
NOTICED_WAIT = 1.0

# A server that stops cancels its calls. Calls that the caller cancels are not handled here.
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

logger = logging.getLogger("birnn")
logger.addHandler(logging.NullHandler())


@dataclass(slots=True)
class Outage:
    """Tracks how long a client's server has been unavailable.

    Attributes:
        address: Address of the server.
        retry_for: Seconds for which a call is repeated while the server is unavailable.
        reached: Whether the client has ever reached the server.
        since: Start of the outage, by time.monotonic(). None while the server answers.
    """

    address: str
    retry_for: float
    reached: bool = False
    since: float | None = None
    _told: bool = field(default=False, init=False)

    def over(self) -> None:
        """Record that the server answered."""
        if self._told and self.since is not None:
            logger.warning("the server at %s answers again after %.0f s", self.address, time.monotonic() - self.since)
        self.reached, self.since, self._told = True, None, False

    def goes_on(self, error: grpc.RpcError) -> None:
        """Record that the server is unavailable. Logs one warning when the outage exceeds `NOTICED_WAIT`."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
        if not self._told and now - self.since >= NOTICED_WAIT:
            self._told = True
            reason = call_error(error, self.address, None)
            logger.warning("%s; calls are repeated for up to %g s", reason, self.retry_for)


class Retries:
    """Decides whether and when one call is tried again.

    A call is repeated for `Outage.retry_for` seconds if the server is starting, draining or restarting, or if the
    connection broke. Encoding an input twice is harmless. A call that an overloaded server refused is repeated up to
    `OVERLOAD_RETRIES` times. No call is repeated after its deadline. The pauses double from `FIRST_PAUSE` to
    `LONGEST_PAUSE`. Each is shortened at random by up to a half, so that clients do not all retry at once. If the
    server says when to retry, the client waits that long instead.

    Args:
        outage: State of the client's server.
        deadline: Deadline of the call, by time.monotonic(). None for no limit.
    """

    def __init__(self, outage: Outage, deadline: float | None) -> None:
        self._outage = outage
        self._deadline = deadline
        self._began: float | None = None
        self._failures = 0
        self._overloads = 0

    def pause(self, error: grpc.RpcError) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up."""
        now = time.monotonic()
        code = error.code()
        if is_final(error):
            return None
        if code in _AWAY:
            if not is_no_connection(error):
                self._outage.reached = True
            self._began = now if self._began is None else self._began
            limit = self._outage.retry_for
            if not self._outage.reached:
                limit = min(limit, UNREACHABLE_FOR)
            else:
                self._outage.goes_on(error)
            end = self._began + limit
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and not is_too_large(error):
            if self._overloads == OVERLOAD_RETRIES or self._outage.retry_for == 0:
                return None
            self._overloads += 1
            end = float("inf")
        else:
            return None
        if self._deadline is not None:
            end = min(end, self._deadline)
        asked = retry_after(error)
        pause = self._back_off() if asked is None else asked
        return pause if now + pause < end else None

    def _back_off(self) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        return random.uniform(longest / 2, longest)
