"""Whether calls come one at a time, so that nobody else waits while the event loop runs a batch itself."""

import math

# Calls in a row that must have found nobody else.
STREAK = 16
# A call that comes so many seconds after the loop has run a batch itself had come before that batch ended: the reply to
# one call, and the caller's next one, take longer on their way.
TURNAROUND = 2e-4
# Calls further apart than so many seconds are no stream of them, and gain nothing: as the probes of an idle server.
PAUSE = 1.0


class LoneCaller:
    """Tells from when calls come, and whom they find, whether there is only one caller.

    A batch that the event loop runs itself spares a lone call two changes of threads, each of which wakes a core. But
    meanwhile the loop takes no other call, and one that comes finds nobody when it gets its turn. What gives it away is
    that it gets it at once.
    """

    def __init__(self) -> None:
        self._streak = 0
        self._came = self._ran = -math.inf

    def arrived(self, others: bool, now: float) -> None:
        """A call came, and found `others` or nobody."""
        in_turn = not others and now - self._ran >= TURNAROUND and now - self._came < PAUSE
        self._streak = self._streak + 1 if in_turn else 0
        self._came = now

    def ran(self, now: float) -> None:
        """The event loop has just run a batch itself."""
        self._ran = now

    @property
    def is_alone(self) -> bool:
        """Whether the last calls came one after another."""
        return self._streak >= STREAK
