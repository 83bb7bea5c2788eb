"""How many spans a process may export a second, whatever its callers ask for."""

import time
from collections.abc import Callable


class SpanBudget:
    """A token bucket that holds what one second allows."""

    def __init__(self, rate: float, least: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `rate` spans a second.

        Args:
            rate: On average.
            least: Spans that may always come at once: those of one call.
            clock: Seconds since some point in time.
        """
        self._rate = rate
        self._size = max(rate, float(least))
        self._clock = clock
        self._room, self._at = self._size, clock()

    def take(self, count: int) -> bool:
        """Whether `count` more spans may be exported; then they count."""
        now = self._clock()
        self._room = min(self._size, self._room + (now - self._at) * self._rate)
        self._at = now
        if count > self._room:
            return False
        self._room -= count
        return True
