"""A companion: a thread that takes a half of the calling thread's work, where it comes to it in time."""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Companion(Generic[T]):
    """Runs jobs for one thread while that one works, or leaves them to it.

    A thread that is woken may have to wait milliseconds for a core where other programs want it too: longer than most
    runs take. So its owner does not wait for a companion that has not begun, and does the job itself.
    """

    def __init__(self) -> None:
        """Start the thread; it ends with the last reference to the companion."""
        self._jobs: SimpleQueue[_Job[T] | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._jobs,), name="birnn-companion", daemon=True).start()
        weakref.finalize(self, self._jobs.put, None)

    def both(self, here: Callable[[], T], there: Callable[[], T]) -> tuple[T, T]:
        """Run `here` on the calling thread and meanwhile, if the companion gets to it, `there` on that.

        Returns:
            Their results.

        Raises:
            Exception: What one of them raised, after both have ended.
        """
        job = _Job(there)
        self._jobs.put(job)
        try:
            mine = here()
        except BaseException:
            job.cancel()
            raise
        return mine, job.result()


class _Job(Generic[T]):
    """Work that is done by the thread that claims it first."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._claim = threading.Lock()
        self._results: SimpleQueue[T | Exception] = SimpleQueue()

    def take(self) -> None:
        """Do the work and keep the result, unless it has been claimed."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._results.put(self._work())
        except Exception as error:
            self._results.put(error)

    def result(self) -> T:
        """The result: of the work done elsewhere, or done now."""
        if self._claim.acquire(blocking=False):
            return self._work()
        result = self._results.get()
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self) -> None:
        """Make sure that the work is not being done any more: claim it, or await its end."""
        if not self._claim.acquire(blocking=False):
            self._results.get()


def companion() -> Companion[Any]:
    """The companion of the calling thread, started when it is first wanted."""
    own: Companion[Any] | None = getattr(_own, "companion", None)
    if own is None:
        own = _own.companion = Companion()
    return own


_own = threading.local()


def _serve(jobs: "SimpleQueue[_Job[T] | None]") -> None:
    # Without a reference to the companion, which so can come to its end.
    while (job := jobs.get()) is not None:
        job.take()
        # A waiting thread must not keep the arrays of its last job alive.
        del job
