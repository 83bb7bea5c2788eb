"""Who took the processor's time during a run: the server, the clients that measured it, or programs of others."""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np

from bench.machine import parents, process_seconds

INTERVAL = 0.25
Group = Literal["server", "clients", "others"]


class Spent(NamedTuple):
    """CPU seconds of each group of processes."""

    server: float
    clients: float
    others: float


@dataclass(slots=True)
class CpuMeter:
    """Samples the CPU time of a server, of the clients and of everything else while they run.

    Everything that descends from the server's process is the server, and what else descends from this one is clients.
    This process itself, which waits, is neither, and not counted among the others.

    Attributes:
        server: Process number of the server.
    """

    server: int
    _times: list[float] = field(default_factory=list)
    _totals: list[Spent] = field(default_factory=list)
    # Of every process seen, the latest reading: those that ended keep what they took.
    _seen: dict[int, tuple[Group, float]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._sample()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()
        self._sample()

    def between(self, begin: float, end: float) -> Spent:
        """CPU seconds between two times, in seconds since the epoch."""
        values = [np.interp([begin, end], self._times, series) for series in zip(*self._totals, strict=True)]
        return Spent(*(float(until - since) for since, until in values))

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        known = parents()
        for pid in known.keys() - {os.getpid()}:
            group: Group = "others"
            if descends(pid, self.server, known):
                group = "server"
            elif descends(pid, os.getpid(), known):
                group = "clients"
            # A process that has just ended reads as 0.
            self._seen[pid] = (group, max(self._seen.get(pid, (group, 0.0))[1], process_seconds(pid)))
        self._times.append(time.time())
        sums = dict.fromkeys(Spent._fields, 0.0)
        for group, seconds in self._seen.values():
            sums[group] += seconds
        self._totals.append(Spent(**sums))


def descends(pid: int, ancestor: int, known: Mapping[int, int]) -> bool:
    """Whether a process is another one or was started, directly or not, by it; `known` are parents by process."""
    while pid != ancestor:
        if pid not in known:
            return False
        pid = known[pid]
    return True
