"""The memory that calls under way may take: what is held for each, by whom, and how much is left."""

from collections import Counter

from birnn_service.errors import InvalidRequestError, OverloadedError, Reason

# Of the budget, what the calls of one caller may hold together. The rest is left to others.
CALLER_SHARE = 0.75
# When a caller may come back who found no memory: calls that hold any end one by one.
RETRY_SECONDS = 1.0
# Memory that a request takes for each of its bytes: as it came, as protobuf's copy, as strings, as tokens, in
# batches. Measured with requests of 15 MiB: 26 for words, 16 for strings that fail one by one.
REQUEST_COST = 24


class MemoryBudget:
    """Admits calls by the bytes that they will take, as the queue admits them by the seconds.

    It lives on the event loop. Bytes are estimates, made from what a request holds before anything is done with it.
    """

    def __init__(self, size: int) -> None:
        """Share out `size` bytes."""
        self.size = size
        self.held = 0
        self._by_caller: Counter[str] = Counter()

    def open(self, caller: str) -> "Hold":
        """What a call of `caller` holds: nothing yet."""
        return Hold(self, caller)

    def take(self, caller: str, size: int, already: int) -> None:
        """Set bytes aside for a call that holds `already` bytes; see `Hold.take`."""
        if already + size > self.size:
            raise InvalidRequestError(
                f"the call needs {mib(already + size)} MiB of memory and this server has {mib(self.size)} MiB for "
                "all calls (by --memory-mib); split the request"
            )
        # A call that is its caller's only one may take what there is.
        share = self.size if self._by_caller[caller] == already else CALLER_SHARE * self.size
        if self.held + size > self.size or self._by_caller[caller] + size > share:
            raise OverloadedError(
                f"this call needs {mib(size)} MiB of memory; calls under way hold {mib(self.held)} MiB, those of "
                f"this caller {mib(self._by_caller[caller])}, and this server has {mib(self.size)} MiB for all of "
                f"them (by --memory-mib), {mib(CALLER_SHARE * self.size)} for one caller; take the replies, "
                "retry later, or send less in a call",
                RETRY_SECONDS,
                Reason.MEMORY,
            )
        self.held += size
        self._by_caller[caller] += size

    def give_back(self, caller: str, size: int) -> None:
        """Free bytes that were set aside."""
        self.held -= size
        self._by_caller[caller] -= size
        if self._by_caller[caller] <= 0:
            del self._by_caller[caller]


class Hold:
    """The bytes that are set aside for one call, until its end."""

    __slots__ = ("_budget", "_caller", "_closed", "size")

    def __init__(self, budget: MemoryBudget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._closed = False
        self.size = 0

    def take(self, size: int) -> None:
        """Set `size` more bytes aside.

        Raises:
            InvalidRequestError: The call could not even have them if it were alone.
            OverloadedError: Other calls hold them, or those of the same caller hold their share.
        """
        if self._closed:
            return
        self._budget.take(self._caller, size, self.size)
        self.size += size

    def close(self) -> None:
        """Give everything back; the call has ended."""
        if not self._closed:
            self._closed = True
            self._budget.give_back(self._caller, self.size)


def mib(size: float) -> str:
    """A size in MiB, for a message."""
    return f"{size / (1 << 20):.3g}"
