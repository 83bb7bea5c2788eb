"""The generator processes of a load test, as one."""

import multiprocessing
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any, Self

from birnn import EncodeError
from birnn_loadtest.arrivals import Process, Trace
from birnn_loadtest.check import Check
from birnn_loadtest.recorder import Recording
from birnn_loadtest.worker import Checked, Failed, Finished, Opened, Order, Plan, Said, work

# From an order to the first call, so that all processes have it by then.
LEAD_SECONDS = 0.1
POLL_SECONDS = 0.2
CLOSE_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Run:
    """A step that has run in all processes.

    Attributes:
        started: When it began.
        recording: What they saw together.
    """

    started: datetime
    recording: Recording


class EndedError(Exception):
    """The user ended the test before there was anything to report."""


class Fleet:
    """Starts the processes, has them run steps at the same time, and ends them.

    The first SIGINT or SIGTERM lets no more calls be sent; the second cancels those under way. Either way the step
    returns what there is. Processes are spawned and not forked, which gRPC does not survive.

    Args:
        plan: What they do.

    Attributes:
        opened: What the first of them learned of the server.
        interrupted: How many signals have come.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._handlers: dict[int, Any] = {}
        self.interrupted = 0
        self.opened: Opened

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        try:
            context = multiprocessing.get_context("spawn")
            for number in range(self._plan.processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, self._plan, number), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
            self.opened = self._gather(Opened)[0]
            if self.interrupted:
                raise EndedError
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, arrivals: Process | Trace | None, warmup: float, seconds: float, seed: int, *, sample: bool) -> Run:
        """Run a step; see `Order`.

        Raises:
            EncodeError: A process cannot go on.
        """
        start = time.monotonic() + LEAD_SECONDS
        started = datetime.now(UTC)
        self._tell(Order(arrivals, warmup, seconds, seed, start, sample))
        return Run(started, Recording.merged([done.recording for done in self._gather(Finished)]))

    def check(self) -> Check:
        """Compare the replies that were kept of the last step.

        Raises:
            EncodeError: A process cannot go on.
        """
        self._tell("check")
        total = Check()
        for done in self._gather(Checked):
            total.add(done.check)
        return total

    def _gather(self, kind: type[Any]) -> list[Any]:
        """One answer of each process."""
        answers: dict[Connection, Said] = {}
        told = 0
        while len(answers) < len(self._connections):
            if self.interrupted > told:
                told = self.interrupted
                if kind is Opened:
                    raise EndedError
                self._tell("stop" if told == 1 else "give up")
            for connection in wait([one for one in self._connections if one not in answers], POLL_SECONDS):
                assert isinstance(connection, Connection)
                answers[connection] = self._heard(connection, kind)
        return [answers[connection] for connection in self._connections]

    def _heard(self, connection: Connection, kind: type[Said]) -> Said:
        try:
            said: Said = connection.recv()
        except (EOFError, ConnectionResetError) as error:
            process = self._processes[self._connections.index(connection)]
            process.join(CLOSE_SECONDS)
            raise EncodeError(f"a generator process ended by itself (status {process.exitcode})") from error
        if isinstance(said, Failed):
            raise EncodeError(said.message)
        assert isinstance(said, kind)
        return said

    def _tell(self, what: Order | str) -> None:
        for connection in self._connections:
            with suppress(BrokenPipeError):
                connection.send(what)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted += 1

    def _end(self) -> None:
        self._tell("close")
        deadline = time.monotonic() + CLOSE_SECONDS
        for process, connection in zip(self._processes, self._connections, strict=True):
            # One that is still at work sees that this end is closed.
            connection.close()
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
