"""How many calls may be under way at a time, and how many of one caller."""

from collections import Counter

from birnn_service.errors import OverloadedError, Reason
from birnn_service.memory_budget import RETRY_SECONDS

# Of all calls, those of one caller, so that no caller keeps all others out by opening calls.
CALLER_SHARE = 0.75
# Of the limit on calls, those that only watch the server's health. They have room of their own, because they need no
# token and last as long as their callers like.
WATCHES_SHARE = 0.25


class CallLimit:
    """Counts calls under way. It lives on the event loop."""

    def __init__(self, most: int, what: str = "calls") -> None:
        """Let `most` calls be under way; `what` they are is for messages."""
        self._most = most
        self._what = what
        self.held = 0
        self._by_caller: Counter[str] = Counter()

    def enter(self, caller: str) -> None:
        """Let a call of `caller` in.

        Raises:
            OverloadedError: There are too many calls, or too many of this caller.
        """
        if self.held >= self._most:
            raise OverloadedError(
                f"this server has {self.held} {self._what} under way, its limit (--max-calls); retry later",
                RETRY_SECONDS,
                Reason.CALLS,
            )
        own = self._by_caller[caller]
        # The only call of its caller may come in wherever there is room.
        if own and own + 1 > CALLER_SHARE * self._most:
            raise OverloadedError(
                f"this caller has {own} {self._what} under way, and this server allows {self._most} (--max-calls), "
                f"{CALLER_SHARE:.0%} of them for one caller; retry later",
                RETRY_SECONDS,
                Reason.CALLS,
            )
        self.held += 1
        self._by_caller[caller] += 1

    def leave(self, caller: str) -> None:
        """A call of `caller` has ended."""
        self.held -= 1
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]
