"""How fast a tokenizer is, as measured while serving."""

# Seconds a byte before anything was measured: those of a slow tokenizer.
FIRST_RATE = 2.5e-7
# Runs over fewer bytes are not measured: their time is mostly overhead.
LEAST_BYTES = 4096
# The mean decays over `MEMORY` runs. A run counts as at most `MOST_SLOWDOWN` times slower than the mean, because a
# pause of the machine says nothing about the tokenizer.
MEMORY, MOST_SLOWDOWN = 16, 4.0


class Rate:
    """Measured seconds that tokenizing a byte takes, as a decaying mean."""

    def __init__(self, first: float = FIRST_RATE) -> None:
        self._seconds = first * LEAST_BYTES
        self._bytes = float(LEAST_BYTES)

    @property
    def seconds(self) -> float:
        """Seconds for each byte."""
        return self._seconds / self._bytes

    def learn(self, size: int, seconds: float) -> None:
        """Note that `size` bytes took `seconds`."""
        if size < LEAST_BYTES:
            return
        seconds = min(seconds, MOST_SLOWDOWN * size * self.seconds)
        keep = 1 - 1 / MEMORY
        self._seconds = keep * self._seconds + seconds
        self._bytes = keep * self._bytes + size

    def doubt(self) -> None:
        """Lower the rate a little, because a request was refused for it: while all are refused, nothing is measured."""
        self._seconds *= 0.95
