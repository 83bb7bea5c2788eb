"""When a failed call is repeated, without any I/O: the same for both clients."""

import logging
import random
import time
from dataclasses import dataclass, field

import grpc

from birnn.errors import call_error, is_final, is_no_connection, is_too_large, retry_after

RETRY_FOR = 30.0
"""Seconds for which a call is repeated while its server is away, by default; a restart takes less."""
UNREACHABLE_FOR = 3.0
"""The same for a server that this client has never reached: its address is probably wrong."""
OVERLOAD_RETRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
# A wait of this many seconds is worth a word.
NOTICED_WAIT = 1.0

# A server that is stopped cancels its calls; what the caller cancels does not come here.
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

logger = logging.getLogger("birnn")
logger.addHandler(logging.NullHandler())


@dataclass(slots=True)
class Outage:
    """What a client knows of its server's absence.

    Attributes:
        address: The server.
        retry_for: Seconds for which a call is repeated while the server is unavailable.
        reached: Whether the server has ever answered.
        since: When it was found away, by time.monotonic(); None while it answers.
    """

    address: str
    retry_for: float
    reached: bool = False
    since: float | None = None
    _told: bool = field(default=False, init=False)

    def over(self) -> None:
        """The server has answered."""
        if self._told and self.since is not None:
            logger.warning("the server at %s answers again after %.0f s", self.address, time.monotonic() - self.since)
        self.reached, self.since, self._told = True, None, False

    def goes_on(self, error: grpc.RpcError) -> None:
        """The server is away; told once it takes noticeably long."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
        if not self._told and now - self.since >= NOTICED_WAIT:
            self._told = True
            reason = call_error(error, self.address, None)
            logger.warning("%s; calls are repeated for up to %g s", reason, self.retry_for)


class Retries:
    """The attempts of one call.

    A call that a server did not answer because it starts, drains, restarts or dropped the connection is repeated for
    `Outage.retry_for` seconds: encoding twice is harmless. One that an overloaded server refused is repeated
    `OVERLOAD_RETRIES` times. Neither is beyond the deadline. Pauses double from `FIRST_PAUSE` to `LONGEST_PAUSE`, less
    a random part of up to a half, so that clients do not return all at once. Where the server says when to come back,
    that counts.

    Args:
        outage: Of the client.
        deadline: When the call must be over, by time.monotonic(); None for no limit.
    """

    def __init__(self, outage: Outage, deadline: float | None) -> None:
        self._outage = outage
        self._deadline = deadline
        self._began: float | None = None
        self._failures = 0
        self._overloads = 0

    def pause(self, error: grpc.RpcError) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none."""
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
