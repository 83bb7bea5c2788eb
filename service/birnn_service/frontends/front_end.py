"""One front-end process, from its start to its end, as the engine process sees it."""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from birnn_service.catalog import Encoder, Encoders
from birnn_service.compute import Compute
from birnn_service.errors import EngineError, ServiceError
from birnn_service.frontends.arena import Arena, create_memory
from birnn_service.frontends.counts import add_report, end_reports
from birnn_service.frontends.engine_side import EngineSide
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import (
    Cancel,
    Carried,
    Counts,
    Encode,
    Followed,
    Listening,
    Message,
    Obstacle,
    Order,
    Refused,
    Released,
    Scrape,
    Scraped,
    Setup,
)
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.metrics_text import MetricsText
from birnn_service.repository.orders import Orders

logger = logging.getLogger(__name__)

# How long a front-end may take to end once it has closed its socket.
END_SECONDS = 5.0
# How long one may take to take calls; a second is usual.
START_SECONDS = 120.0
# Looks at a front-end that has said nothing, after which it is taken to hang. Several, so that a pause of the whole
# machine is not held against it.
QUIET_LOOKS = 4


class FrontEnd:
    """A process that takes calls, and its requests here."""

    def __init__(
        self,
        number: int,
        life: int,
        compute: Compute,
        encoders: Encoders[Encoder],
        orders: Orders,
        metrics: Metrics,
        text: MetricsText,
        changed: Callable[[], None],
    ) -> None:
        """Prepare a front-end.

        Args:
            number: Which of the server's front-ends it is, from 1.
            life: What tells it from those of the same number before it.
            compute: What computes its requests.
            encoders: What they can be for.
            orders: Carries out the orders of its callers.
            metrics: Where its counts go.
            text: What its callers get of all counts.
            changed: Called when it begins or ceases to take calls.
        """
        self.number = number
        self._life = life
        self._compute = compute
        self._encoders = encoders
        self._orders = orders
        self._text = text
        # Its orders and scrapes under way.
        self._tasks: set[asyncio.Task[None]] = set()
        # Answers that it owes to changes, by their kind and instance, in the order in which it was told.
        self._owed: dict[tuple[type, int], deque[asyncio.Future[None]]] = {}
        self._changed = changed
        self._metrics = metrics
        self.listening = asyncio.Event()
        self.obstacle = ""
        self._heard = False
        self._refusal = ""
        self._gone = asyncio.Event()
        self._process: Process
        self._link: Link
        self._side: EngineSide | None = None

    async def start(self, memory: int, statistics: int, setup: Callable[[], Setup]) -> None:
        """Start the process.

        Args:
            memory: Bytes of its arena.
            statistics: Descriptor of the memory in which it counts calls.
            setup: What it is to know first, as it is when it is told.

        Raises:
            OSError: The system has no room for another process, or for its memory.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptor = create_memory(memory)
        try:
            passed = (theirs.fileno(), descriptor, statistics)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "birnn_service.frontends.process", str(self.number), *map(str, passed)),
                pass_fds=passed,
                env={
                    # Or gRPC writes a line for each handshake that fails, and everyone who reaches the port could fill
                    # the log.
                    "GRPC_VERBOSITY": "ERROR",
                    **os.environ,
                    # What this process can import, that one can, from wherever it was started.
                    "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                },
            )
            self._side = EngineSide(Arena(descriptor), self._encoders, self._compute, self.send)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(descriptor)
        self._link = await Link.open(ours, self._received, self._lost)
        self.send(setup())

    def send(self, message: Message) -> None:
        """Tell it something."""
        self._link.send(message)

    def owes(self, kind: type[Followed | Released], instance: int) -> "asyncio.Future[None]":
        """What is done once it has answered a change of an instance with such a message, or has ended."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._gone.is_set():
            # Its process may take a while to end after that.
            answer.set_result(None)
            return answer
        self._owed.setdefault((kind, instance), deque()).append(answer)
        return answer

    async def wait(self, silence: float) -> str:
        """Wait for its end, and withdraw what it has left; returns how it ended.

        One that hangs is killed: it takes too long to take calls, or has then not said anything for `silence` seconds.
        """
        watch = asyncio.create_task(self._watch(silence))
        await self._gone.wait()
        watch.cancel()
        try:
            async with asyncio.timeout(END_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        return self._refusal or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()

    async def _watch(self, silence: float) -> None:
        """Kill it once it hangs: whatever waits for its answers would wait for ever."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.listening.wait()
        except TimeoutError:
            self._refusal = f"it does not take calls after {START_SECONDS:g} s"
            self.kill()
            return
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(silence / QUIET_LOOKS)
            quiet = 0 if self._heard else quiet + 1
            self._heard = False
        logger.error("front-end %d has not said anything for %g s and is killed", self.number, silence)
        self.kill()

    def _received(self, message: Message) -> None:
        self._heard = True
        match message:
            case Encode() if self._side is not None:
                self._side.begin(message)
            case Cancel() if self._side is not None:
                self._side.cancel(message)
            case Followed() | Released():
                self._settle(type(message), message.number)
            case Order():
                self._begin(self._carry_out(message))
            case Scrape():
                self._begin(self._scrape(message))
            case Counts():
                add_report(self._metrics, self._life, message.json)
            case Listening():
                self.listening.set()
                self._changed()
            case Obstacle():
                self.obstacle = message.reason
                self._changed()
            case Refused():
                self._refusal = message.reason
            case _:
                raise ValueError(f"a front-end sent {message}")

    def _settle(self, kind: type[Followed | Released], instance: int) -> None:
        """It has given the first answer of a kind that it owes for an instance."""
        owed = self._owed.get((kind, instance))
        if not owed:
            raise ValueError(f"a front-end answered what it was not told of instance {instance}")
        owed.popleft().set_result(None)
        if not owed:
            del self._owed[kind, instance]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _scrape(self, asked: Scrape) -> None:
        packed = b""
        try:
            packed = await self._text.packed()
        except Exception as found:
            logger.error("the metrics could not be collected", exc_info=found)
        self.send(Scraped(asked.number, packed))

    async def _carry_out(self, order: Order) -> None:
        """Carry out an order, and say what came of it; one of a front-end that has ended is carried out, too."""
        carry_out = {"load": self._orders.load, "unload": self._orders.unload}[order.action]
        error: ServiceError | None = None
        try:
            await carry_out(order.model)
        except ServiceError as found:
            error = found
        except Exception as found:
            logger.error("an order of a front-end failed unexpectedly", exc_info=found)
            error = EngineError(f"the engine process failed unexpectedly ({type(found).__name__}); its log says more")
        self.send(Carried(order.number, error))

    def _lost(self) -> None:
        self.listening.clear()
        for kind, instance in list(self._owed):
            while (kind, instance) in self._owed:
                self._settle(kind, instance)
        self.obstacle = ""
        self._changed()
        if self._side is not None:
            self._side.close()
        # With it goes the arena, once the last of its requests has ended.
        self._side = None
        end_reports(self._metrics, self._life)
        self._gone.set()
