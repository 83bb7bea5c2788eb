"""The response cache: pooled encodings of the sequences that were asked for last, for each tenant its own."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# What Python keeps beside the bytes of a key and of a row: two objects' headers and an entry of the table.
OVERHEAD = 250


class Shelf:
    """What is kept for one tenant, the latest asked for last.

    Attributes:
        rows: Encodings by encoder and sequence.
        bytes: What they take.
    """

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.rows: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self.bytes = 0

    def drop_oldest(self) -> int:
        """Forget the row not asked for the longest; returns its bytes."""
        (_, key), row = self.rows.popitem(last=False)
        size = _size(key, row)
        self.bytes -= size
        return size


class ResponseCache:
    """A least-recently-used cache of encodings by tenant, encoder version and exact token ids, bounded in bytes.

    A tenant finds only what it has asked for itself, so the time of a reply tells it nothing of the others. Where the
    cache is full, tenants that keep something have equal shares of it: rows are forgotten of one that holds more than
    its share. So no tenant pushes out what another keeps within its share, and a lone tenant may use everything.

    Not for several threads at a time: it belongs to the event loop.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes; at 0 nothing is kept."""
        self._max_bytes = max_bytes
        self._shelves: dict[str, Shelf] = {}
        # The tenant of which rows are forgotten, as long as it holds more than its share.
        self._largest = ""
        self.bytes = 0

    def __len__(self) -> int:
        return sum(len(shelf.rows) for shelf in self._shelves.values())

    @property
    def enabled(self) -> bool:
        """Whether anything may be kept."""
        return self._max_bytes > 0

    def get(self, encoder: str, key: bytes, tenant: str = "") -> NDArray[np.float32] | None:
        """The encoding [D] of a sequence, which is now the one asked for last; None where it is not kept.

        Args:
            encoder: What tells the encoder and version apart from every other.
            key: What tells the sequence apart, from `RaggedBatch.keys`.
            tenant: Who asks; empty for all callers without a name.
        """
        shelf = self._shelves.get(tenant)
        row = None if shelf is None else shelf.rows.get((encoder, key))
        if shelf is not None and row is not None:
            shelf.rows.move_to_end((encoder, key))
        return row

    def put(self, encoder: str, key: bytes, row: NDArray[np.float32], tenant: str = "") -> None:
        """Keep a copy of an encoding [D] for a tenant, and forget others where it gets too much."""
        size = _size(key, row)
        if size > self._max_bytes:
            return
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = Shelf()
        if (encoder, key) in shelf.rows:
            shelf.rows.move_to_end((encoder, key))
            return
        # A copy: a view would keep the whole batch alive.
        shelf.rows[encoder, key] = row.copy()
        shelf.bytes += size
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._forget_one(tenant)

    def _forget_one(self, tenant: str) -> None:
        """Forget a row: of the tenant that has just put one, or else of another, that holds more than its share.

        The largest is looked for only when the one found last no longer holds more: looking at all tenants for each row
        would take too long.
        """
        share = self._max_bytes / len(self._shelves)
        for name in (tenant, self._largest):
            if name in self._shelves and self._shelves[name].bytes > share:
                break
        else:
            name = self._largest = max(self._shelves, key=lambda name: self._shelves[name].bytes)
        shelf = self._shelves[name]
        self.bytes -= shelf.drop_oldest()
        if not shelf.rows:
            del self._shelves[name]


def _size(key: bytes, row: NDArray[np.float32]) -> int:
    return len(key) + row.nbytes + OVERHEAD
