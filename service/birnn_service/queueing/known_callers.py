"""Known callers: those that have called for a while, as opposed to new addresses."""

# Seconds after its first call from which on a caller is known, and without any call after which it is forgotten.
KNOWN_AFTER = 1.0
FORGOTTEN_AFTER = 60.0
# Callers that are remembered. While the memory is full, new callers stay unknown, so that no flood of new addresses
# drives out those that keep calling.
MOST = 4096


class KnownCallers:
    """Remembers who has called, and since when.

    Known callers are served first where nothing else decides. So a caller that keeps changing its address waits behind
    those who called before, and not the other way round.
    """

    def __init__(self) -> None:
        # First and last call, by caller; the caller that has not called for the longest time comes first.
        self._calls: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def called(self, caller: str, now: float) -> bool:
        """Note a call.

        Returns:
            Whether its caller is known.
        """
        self._forget(now)
        first, _ = self._calls.pop(caller, (now, now))
        if len(self._calls) < MOST:
            self._calls[caller] = (first, now)
        return now - first >= KNOWN_AFTER

    def _forget(self, now: float) -> None:
        while self._calls:
            caller = next(iter(self._calls))
            if now - self._calls[caller][1] < FORGOTTEN_AFTER:
                break
            del self._calls[caller]
