"""Workers that encode parts side by side: who runs them differs, what becomes of a lost one does not."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

from tqdm import tqdm

from birnn_bulk.bulk_encoder import Task
from birnn_bulk.part_file import Entry
from birnn_bulk.plan import BulkError
from birnn_bundle.quoting import printable

# How often a part is tried in a new worker after one was lost with it.
RETRIES = 2


class WorkerLostError(Exception):
    """A worker ended in the midst of its work; the message says how."""


class NoRoomError(Exception):
    """There is no room for another worker now."""


class Worker(Protocol):
    """A `BulkEncoder` somewhere else."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of it, and wait for the result.

        Raises:
            BulkError: The method raised it, or another error.
            WorkerLostError: There is no result, and there will be none.
        """

    def close(self) -> None:
        """End it, whatever it does."""


class Crew:
    """Has workers encode parts, each one part at a time, and replaces those that are lost.

    Args:
        start: Starts a worker; may raise BulkError, WorkerLostError or NoRoomError.
    """

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start = start
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        self._idle.put(None)
        self._size = 1
        self._workers: set[Worker] = set()
        self._lock = Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, set()
        for worker in workers:
            worker.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of any worker that is idle; see `Worker.call`. Lost workers are replaced.

        Raises:
            BulkError: It failed, or cost too many workers.
        """
        for attempt in range(RETRIES + 1):
            worker = None
            try:
                worker = self._idle_worker()
                return worker.call(method, *arguments)
            except WorkerLostError as error:
                lost = error
                self._forget(worker)
                worker = None
                if self._closed:
                    break
                if attempt < RETRIES:
                    _warn(f"a worker was lost: {error}; trying again")
            finally:
                self._idle.put(worker)
        raise BulkError(f"workers were lost {RETRIES + 1} times in a row, at last: {lost}")

    def encode(self, tasks: Iterator[Task], workers: int) -> Iterator[Entry]:
        """Encode parts on `workers` workers; gives their entries as they are done.

        At most two parts a worker are in memory here.

        Raises:
            BulkError: One cannot be encoded; those that are done stay.
        """
        for _ in range(workers - self._size):
            self._idle.put(None)
        self._size = max(self._size, workers)
        threads = ThreadPoolExecutor(workers)
        pending: set[Future[Entry]] = set()
        try:
            for task in tasks:
                pending.add(threads.submit(self._encode, task))
                while len(pending) >= 2 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            # What runs would be waited for.
            self.__exit__(None, None, None)
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _encode(self, task: Task) -> Entry:
        try:
            entry: Entry = self.call("encode", task)
        except BulkError as error:
            part = task.part
            raise BulkError(
                f"part {part.number} ({task.input}, records {part.start + 1:,} to {part.stop:,}): {error}"
            ) from error
        return entry

    def _idle_worker(self) -> Worker:
        """An idle worker, started if it has not been; with fewer than wanted where there is no room for one."""
        while True:
            worker = self._idle.get()
            if worker is not None:
                return worker
            try:
                worker = self._start()
            except NoRoomError as error:
                with self._lock:
                    self._size -= 1
                    left = self._size
                if left <= 0:
                    raise BulkError(str(error)) from error
                _warn(f"{error}; going on with {left} workers")
                continue
            with self._lock:
                if not self._closed:
                    self._workers.add(worker)
                    return worker
            worker.close()
            raise WorkerLostError("the job has ended")

    def _forget(self, worker: Worker | None) -> None:
        if worker is not None:
            with self._lock:
                self._workers.discard(worker)
            worker.close()


def _warn(text: str) -> None:
    # Not click.echo: this one spares the progress bar.
    tqdm.write(printable(f"warning: {text}"), file=sys.stderr)
