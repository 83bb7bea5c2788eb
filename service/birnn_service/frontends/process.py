"""The front-end process: takes calls, tokenizes, has the engine process compute, and writes replies.

Usage: python -m birnn_service.frontends.process NUMBER SOCKET MEMORY STATISTICS; all but the first are descriptors that
it inherits.
"""

import asyncio
import gc
import logging
import signal
import socket
import sys
from contextlib import suppress

import uvloop

from birnn_service.access import Access
from birnn_service.catalog import address_of
from birnn_service.descriptors import DescriptorWatch
from birnn_service.errors import StartupError
from birnn_service.front import Front
from birnn_service.frontends.arena import Arena
from birnn_service.frontends.counts import Reporter
from birnn_service.frontends.following import Following
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import (
    Carried,
    Counts,
    Done,
    Drain,
    Failed,
    Health,
    Listed,
    Listening,
    Message,
    Obstacle,
    Refused,
    Retired,
    Scraped,
    Served,
    Setup,
    Withdrawn,
)
from birnn_service.frontends.remote_compute import RemoteCompute
from birnn_service.frontends.remote_metrics_text import RemoteMetricsText
from birnn_service.frontends.remote_orders import RemoteOrders
from birnn_service.frontends.setup import read_setup
from birnn_service.observe.call_observer import CallObserver
from birnn_service.observe.logs import log_uncaught, start_logging
from birnn_service.observe.loop_lag import LoopLag
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.process_metrics import read_process
from birnn_service.observe.tracing import Tracing
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.tenants import TenantLabels

logger = logging.getLogger(__name__)

# How often the engine process hears what has been counted; what came later is lost with a front-end that is killed.
REPORT_SECONDS = 0.5


class FrontEndProcess:
    """This process's life: hear what is served, take calls, drain when told to, or when the engine process is gone."""

    def __init__(self, number: int, arena: Arena, statistics: int) -> None:
        self._number = number
        self._arena = arena
        self._statistics = statistics
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()
        self._setup: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._compute: RemoteCompute | None = None
        self._orders: RemoteOrders | None = None
        self._text: RemoteMetricsText | None = None
        # Changes of what is served that come before all else is ready to follow them.
        self._early: list[Served | Retired | Listed] = []
        self._following: Following | None = None
        self._state = ServingState()

    async def run(self, sock: socket.socket) -> int:
        """Serve until told to stop; returns the exit status."""
        # SIGTERM to a group of processes comes here too; SIGINT, from a terminal, is left to the engine process.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        link = await Link.open(sock, self._received, self._lost)
        raw = await self._setup
        if not raw:
            return 1
        encoders, settings, broken = read_setup(raw)
        metrics = Metrics(f"frontend-{self._number}")
        start_logging(settings, metrics.process)
        log_uncaught()
        read_process(metrics)
        self._compute, self._orders = RemoteCompute(self._arena, link), RemoteOrders(link)
        self._text = RemoteMetricsText(link)
        statistics = Statistics((), 1 + settings.frontends, self._number, self._statistics)
        for encoder in encoders:
            statistics.add(encoder, encoder.row)
            metrics.begin(address_of(encoder))
        self._state.set_broken(broken)
        following = self._follow(Following(encoders, statistics, self._state, metrics, link.send))
        try:
            access = Access(settings)
            metrics.tenants.labels = TenantLabels(lambda: access.grants.by_name)
            tracing = Tracing.of(settings, metrics)
            front = Front(
                encoders, self._compute, self._orders, self._state, settings, metrics, statistics, access, self._text,
                CallObserver.of(settings, tracing), share_port=True,
            )  # fmt: skip
            await front.listen()
        except StartupError as error:
            link.send(Refused(str(error)))
            await self._close(link)
            return 1
        if tracing is not None:
            tracing.start()
        self._state.start()
        # As in the engine process: what is loaded stays.
        gc.collect()
        gc.freeze()
        link.send(Listening())
        watch = DescriptorWatch(metrics, self._state)
        reporter, lag = Reporter(metrics), LoopLag(metrics.loop_lag_seconds.labels(metrics.process))
        works = (self._report(link, reporter), self._tell(link), watch.run(), lag.run(), access.watch())
        tasks = [following, *map(asyncio.create_task, works)]
        await self._stop.wait()
        if self._gone.is_set():
            logger.error("the engine process is gone; stopping")
        await front.drain()
        for task in tasks:
            task.cancel()
        if tracing is not None:
            await tracing.close()
        link.send(Counts(reporter.report()))
        await self._close(link)
        front.close()
        return 0

    def _follow(self, following: Following) -> "asyncio.Task[None]":
        """Follow what changes, and what has changed already."""
        for change in self._early:
            following.tell(change)
        self._early.clear()
        self._following = following
        task = asyncio.create_task(following.run())
        task.add_done_callback(self._ceased)
        return task

    def _ceased(self, following: "asyncio.Task[None]") -> None:
        """Changes are followed no longer; if by an error, another front-end is to take the place of this one."""
        if not following.cancelled() and (error := following.exception()):
            logger.error("this front-end cannot follow what is served, and ends", exc_info=error)
            self._stop.set()

    async def _report(self, link: Link, reporter: Reporter) -> None:
        while True:
            link.send(Counts(reporter.report()))
            await asyncio.sleep(REPORT_SECONDS)

    async def _tell(self, link: Link) -> None:
        """Tell the engine process what keeps this one from being ready."""
        told = ""
        while True:
            change = self._state.next_change
            if self._state.obstacle != told:
                told = self._state.obstacle
                link.send(Obstacle(told))
            await change.wait()

    async def _close(self, link: Link) -> None:
        """Close the link, once everything is sent."""
        link.close()
        await self._gone.wait()

    def _received(self, message: Message) -> None:
        match message:
            case Done() | Failed() | Withdrawn():
                assert self._compute is not None
                self._compute.answered(message)
            case Setup():
                self._setup.set_result(message.json)
            case Served() | Retired() | Listed():
                if self._following is None:
                    self._early.append(message)
                else:
                    self._following.tell(message)
            case Carried():
                assert self._orders is not None
                self._orders.carried(message)
            case Scraped():
                assert self._text is not None
                self._text.scraped(message)
            case Health():
                self._state.set_unhealthy(message.unhealthy)
            case Drain():
                self._stop.set()
            case _:
                raise ValueError(f"the engine process sent {message}")

    def _lost(self) -> None:
        if not self._setup.done():
            self._setup.set_result(b"")
        if self._compute is not None:
            self._compute.lose()
        if self._orders is not None:
            self._orders.lose()
        if self._text is not None:
            self._text.lose()
        self._gone.set()
        self._stop.set()


async def _main(number: int, sock: socket.socket, memory: int, statistics: int) -> int:
    return await FrontEndProcess(number, Arena(memory), statistics).run(sock)


def main() -> None:
    """Run a front-end."""
    number, sock, memory, statistics = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(KeyboardInterrupt):
        sys.exit(uvloop.run(_main(number, socket.socket(fileno=sock), memory, statistics)))


if __name__ == "__main__":
    main()
