"""Slots: the threads on which engines run."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from birnn_service.engine.cores import yield_to_event_loop
from birnn_service.queueing.request import Values

# How long `close` waits for running jobs; a thread that hangs does not keep the process alive.
CLOSE_SECONDS = 5.0

Done = Callable[[Values | Exception], None]
Job = tuple[Callable[[], Values], Done]


def outcome_of(job: Callable[[], Values]) -> Values | Exception:
    """Run a job and return its result, or the error that it raised."""
    try:
        return job()
    except Exception as error:
        return error


class Slots:
    """Worker threads that run one job each and report to the event loop.

    `loop.run_in_executor` does the same with two futures and two locks for each job. Where jobs take a millisecond,
    that was a tenth of the event loop's time.
    """

    def __init__(self, count: int, *, yielding: bool = False) -> None:
        """Start threads; they end with `close`, or with the process.

        Args:
            count: How many.
            yielding: Let the event loop go first where all cores are busy (Linux). For jobs that compute: the loop
                supplies them with work and sends their results, and needs little time for it.
        """
        self.yielding = yielding
        """Of threads that are started from now on."""
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        """Have at least `count` threads."""
        while len(self._threads) < count:
            name = f"birnn-slot-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def run(self, job: Callable[[], Values], done: Done) -> None:
        """Run `job` on an idle thread, and call `done` with its result or error on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._jobs.put((job, done))

    def close(self) -> None:
        """End the threads once their jobs are done, and wait for that up to `CLOSE_SECONDS`.

        The C++ runtime aborts a process that exits while an engine runs.
        """
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        if self.yielding:
            yield_to_event_loop()
        while (item := self._jobs.get()) is not None:
            job, done = item
            result = outcome_of(job)
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                # The loop was closed: no one waits for the result.
                return
            # A waiting thread must not keep the arrays of its last job alive.
            del item, job, done, result
