"""How much of a core the event loop needs, where batches run on the same cores."""

import time
from collections.abc import Callable

# Weight of one batch in the running mean.
SMOOTHING = 0.02
# Shares of a core from which on it is the loop's, and below which it is free for batches again.
TAKEN, FREE = 0.45, 0.3


class LoopShare:
    """Tells whether the event loop should have a core to itself, from how much of one it takes while batches run.

    A slot that idles is not a core that idles: the loop has to run somewhere. Where many small calls keep it busy, a
    batch on every core only delays it, and batches stay small, because calls reach the queue one by one. With a core
    of its own the loop gathers calls while a batch runs, and larger batches cost less in all. For a lone caller, or a
    few with large requests, the loop sleeps while batches run, and they have all cores.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """Start with an idle loop; `clock` tells the processor time of the calling thread, in seconds."""
        self._clock = clock
        self._share = 0.0
        self.has_a_core = False

    def mark(self) -> float:
        """To be called by the loop where a batch starts, and given to `note` where it ends."""
        return self._clock()

    def note(self, mark: float, seconds: float) -> None:
        """A batch that began at `mark` has taken `seconds`."""
        self._share += SMOOTHING * ((self._clock() - mark) / max(seconds, 1e-9) - self._share)
        self.has_a_core = self._share > (FREE if self.has_a_core else TAKEN)
