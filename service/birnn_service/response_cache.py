"""The response cache: pooled encodings of the sequences that were asked for last, for each tenant its own."""

import asyncio
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# What Python keeps beside the bytes of a key and of a row: two objects' headers and an entry of the table.
OVERHEAD = 250
# Rows that are forgotten in one go, in about a millisecond.
PIECE = 1024


class Shelf:
    """What is kept for one tenant, the latest asked for last.

    Attributes:
        rows: Encodings by encoder and sequence.
        bytes: What they take.
    """

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.rows: OrderedDict[tuple[int, bytes], NDArray[np.float32]] = OrderedDict()
        self.bytes = 0

    def drop_oldest(self) -> int:
        """Forget the row not asked for the longest; returns its bytes."""
        return self.drop(next(iter(self.rows)))

    def drop(self, place: tuple[int, bytes]) -> int:
        """Forget a row; returns its bytes."""
        size = _size(place[1], self.rows.pop(place))
        self.bytes -= size
        return size


class ResponseCache:
    """A least-recently-used cache of encodings by tenant, instance of an encoder and exact token ids, bounded in bytes.

    A tenant finds only what it has asked for itself, so the time of a reply tells it nothing of the others. Where the
    cache is full, tenants that keep something have equal shares of it: rows are forgotten of one that holds more than
    its share. So no tenant pushes out what another keeps within its share, and a lone tenant may use everything.

    Not for several threads at a time: it belongs to the event loop.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes; at 0 nothing is kept."""
        self.max_bytes = max_bytes
        self._shelves: dict[str, Shelf] = {}
        # The tenant of which rows are forgotten, as long as it holds more than its share.
        self._largest = ""
        self.bytes = 0

    def __len__(self) -> int:
        return sum(len(shelf.rows) for shelf in self._shelves.values())

    @property
    def enabled(self) -> bool:
        """Whether anything may be kept."""
        return self.max_bytes > 0

    def get(self, instance: int, key: bytes, tenant: str = "") -> NDArray[np.float32] | None:
        """The encoding [D] of a sequence, which is now the one asked for last; None where it is not kept.

        Args:
            instance: Which load of which encoder.
            key: What tells the sequence apart, from `RaggedBatch.keys`.
            tenant: Who asks; empty for all callers without a name.
        """
        shelf = self._shelves.get(tenant)
        row = None if shelf is None else shelf.rows.get((instance, key))
        if shelf is not None and row is not None:
            shelf.rows.move_to_end((instance, key))
        return row

    def put(self, instance: int, key: bytes, row: NDArray[np.float32], tenant: str = "") -> None:
        """Keep a copy of an encoding [D] for a tenant, and forget others where it gets too much."""
        size = _size(key, row)
        if size > self.max_bytes:
            return
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = Shelf()
        if (instance, key) in shelf.rows:
            shelf.rows.move_to_end((instance, key))
            return
        # A copy: a view would keep the whole batch alive.
        shelf.rows[instance, key] = row.copy()
        shelf.bytes += size
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._forget_one(tenant)

    def _forget_one(self, tenant: str) -> None:
        """Forget a row: of the tenant that has just put one, or else of another, that holds more than its share.

        The largest is looked for only when the one found last no longer holds more: looking at all tenants for each row
        would take too long.
        """
        share = self.max_bytes / len(self._shelves)
        for name in (tenant, self._largest):
            if name in self._shelves and self._shelves[name].bytes > share:
                break
        else:
            name = self._largest = max(self._shelves, key=lambda name: self._shelves[name].bytes)
        shelf = self._shelves[name]
        self.bytes -= shelf.drop_oldest()
        if not shelf.rows:
            del self._shelves[name]

    async def forget(self, instance: int) -> None:
        """Forget an encoder that is unloaded, in pieces, so that calls go on meanwhile."""
        for tenant, shelf in list(self._shelves.items()):
            for number, place in enumerate([place for place in shelf.rows if place[0] == instance]):
                if place in shelf.rows:
                    self.bytes -= shelf.drop(place)
                if number % PIECE == PIECE - 1:
                    await asyncio.sleep(0)
            if not shelf.rows and self._shelves.get(tenant) is shelf:
                del self._shelves[tenant]


def _size(key: bytes, row: NDArray[np.float32]) -> int:
    return len(key) + row.nbytes + OVERHEAD
