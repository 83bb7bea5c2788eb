"""Slots: the threads on which engines run."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from birnn_service.queueing.request import Values

# How long running jobs may take to end; a thread that hangs does not keep the process from ending.
CLOSE_SECONDS = 5.0

Done = Callable[[Values | Exception], None]
Job = tuple[Callable[[], Values], Done]

# A third of the event loop's weight where both want the same core.
NICENESS = 5


def outcome_of(job: Callable[[], Values]) -> Values | Exception:
    """Run a job; its result or its error, which belongs to whoever waits for the job."""
    try:
        return job()
    except Exception as error:
        return error


class Slots:
    """Worker threads that run one job each and report to the event loop.

    `loop.run_in_executor` does the same through two futures and two locks a job: on the busiest path of a server whose
    jobs take a millisecond, that was a tenth of the event loop's time.
    """

    def __init__(self, count: int, *, yielding: bool = False) -> None:
        """Start threads; they end with `close`, or with the process.

        Args:
            count: How many.
            yielding: Let other threads go first where all cores are busy (Linux). For jobs that compute: the event
                loop feeds them and sends what they have done, and takes little of a core's time for it.
        """
        self._yielding = yielding and sys.platform == "linux"
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"birnn-slot-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._threads)

    def run(self, job: Callable[[], Values], done: Done) -> None:
        """Run `job` on a thread that is free, and call `done` with its result or error on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._jobs.put((job, done))

    def close(self) -> None:
        """Let the threads end after the jobs that they have, and wait for that a while.

        A process that ends while one of them is within an engine is aborted by the C++ runtime.
        """
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        if self._yielding:
            # On Linux it is the thread's own, elsewhere that of the process.
            os.nice(NICENESS)
        while (item := self._jobs.get()) is not None:
            job, done = item
            result = outcome_of(job)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                # The loop was closed: nobody waits any more.
                return
            # A waiting thread must not keep the arrays of its last job alive.
            del item, job, done, result
