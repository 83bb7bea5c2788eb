"""All connections of an HTTP server: how many there are, whose, and until when."""

import asyncio
from collections import Counter
from typing import Protocol
from weakref import WeakValueDictionary

from birnn_service.transports.http_message import HttpLimits

# Of all connections, what one caller may have.
CALLER_SHARE = 0.75


class Bounded(Protocol):
    """A connection with a deadline."""

    caller: str
    until: float

    def abort(self) -> None:
        """End it at once."""

    def expire(self) -> None:
        """End it, or what it waits for: its deadline has passed."""


class Connections:
    """All connections of a server: bounds their number, and ends those whose deadline has passed."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.draining = False
        self.refused = 0
        self._all: set[Bounded] = set()
        # Those without a request under way, the one that waits longest first.
        self._waiting: dict[Bounded, None] = {}
        self._callers: Counter[str] = Counter()
        self._unpacking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Bounded) -> bool:
        """Take in a new connection, if need be in place of one that waits."""
        self._all.add(connection)
        self._waiting[connection] = None
        self._callers[connection.caller] += 1
        if self._callers[connection.caller] > CALLER_SHARE * self.limits.connections:
            self.refused += 1
            return False
        if len(self._all) <= self.limits.connections:
            return True
        self.refused += 1
        oldest = next(iter(self._waiting))
        oldest.abort()
        return oldest is not connection

    def begin(self, connection: Bounded) -> None:
        """A connection has a request under way."""
        self._waiting.pop(connection, None)

    def rest(self, connection: Bounded) -> None:
        """A connection has none any more."""
        self._waiting[connection] = None

    def forget(self, connection: Bounded) -> None:
        """A connection has ended, or is another one from now on."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        self._waiting.pop(connection, None)
        self._callers[connection.caller] -= 1
        if self._callers[connection.caller] <= 0:
            del self._callers[connection.caller]

    def unpacking(self, caller: str) -> asyncio.Lock:
        """Held while a large body of a caller is unpacked."""
        lock = self._unpacking.get(caller)
        if lock is None:
            lock = self._unpacking[caller] = asyncio.Lock()
        return lock

    def abort(self) -> None:
        """End all connections."""
        for connection in list(self._all):
            connection.abort()

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        for connection in [each for each in self._all if each.until < now]:
            connection.expire()
