"""A worker that is a process of this machine."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import Any

from birnn_bulk.bulk_encoder import BulkEncoder, Job
from birnn_bulk.crew import WorkerLostError
from birnn_bulk.plan import BulkError

CLOSE_SECONDS = 10.0


class ProcessWorker:
    """Starts a process, which ends with this one, and at the latest after the part that it works on.

    Processes are spawned and not forked: threads and engines do not survive that.
    """

    def __init__(self, job: Job) -> None:
        """Start it; what is wrong with the job shows in the first call."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job), daemon=True, name="birnn-bulk")
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """See `Worker.call`."""
        try:
            self._connection.send((method, arguments))
            result = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(CLOSE_SECONDS)
            status = self._process.exitcode
            killed = "; the system kills what takes too much memory: try fewer --workers or --part-rows"
            raise WorkerLostError(
                f"its process ended with status {status}{killed if status == -signal.SIGKILL else ''}"
            ) from error
        if isinstance(result, BulkError):
            raise result
        return result

    def close(self) -> None:
        """See `Worker.close`."""
        self._process.terminate()
        self._process.join(CLOSE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._connection.close()


def _work(connection: Connection, job: Job) -> None:
    """Answer calls until the other end is closed."""
    # An interrupt reaches all processes of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    encoder: BulkEncoder | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            encoder = encoder or BulkEncoder(job)
            result = getattr(encoder, method)(*arguments)
        except (BulkError, OSError) as error:
            result = BulkError(str(error))
        # Not to be held while the next part comes.
        del arguments
        try:
            connection.send(result)
        except BrokenPipeError:
            return
