"""The response cache: pooled encodings of the sequences that were asked for last."""

import asyncio
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# What Python keeps beside the bytes of a key and of a row: two objects' headers and an entry of the table.
OVERHEAD = 250
# Rows that are forgotten in one go, in about a millisecond.
PIECE = 1024


class ResponseCache:
    """A least-recently-used cache of encodings by instance of an encoder and exact token ids, bounded in bytes.

    Not for several threads at a time: it belongs to the event loop.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes; at 0 nothing is kept."""
        self._max_bytes = max_bytes
        self._rows: OrderedDict[tuple[int, bytes], NDArray[np.float32]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def enabled(self) -> bool:
        """Whether anything may be kept."""
        return self._max_bytes > 0

    def get(self, instance: int, key: bytes) -> NDArray[np.float32] | None:
        """The encoding [D] of a sequence, which is now the one asked for last; None where it is not kept.

        Args:
            instance: Which load of which encoder.
            key: What tells the sequence apart, from `RaggedBatch.keys`.
        """
        row = self._rows.get((instance, key))
        if row is not None:
            self._rows.move_to_end((instance, key))
        return row

    def put(self, instance: int, key: bytes, row: NDArray[np.float32]) -> None:
        """Keep a copy of an encoding [D], and forget those not asked for the longest where it gets too much."""
        size = _size(key, row)
        if size > self._max_bytes:
            return
        if (instance, key) in self._rows:
            self._rows.move_to_end((instance, key))
            return
        # A copy: a view would keep the whole batch alive.
        self._rows[instance, key] = row.copy()
        self.bytes += size
        while self.bytes > self._max_bytes:
            (_, oldest), old = self._rows.popitem(last=False)
            self.bytes -= _size(oldest, old)

    async def forget(self, instance: int) -> None:
        """Forget an encoder that is unloaded, in pieces, so that calls go on meanwhile."""
        for number, place in enumerate([place for place in self._rows if place[0] == instance]):
            if (row := self._rows.pop(place, None)) is not None:
                self.bytes -= _size(place[1], row)
            if number % PIECE == PIECE - 1:
                await asyncio.sleep(0)


def _size(key: bytes, row: NDArray[np.float32]) -> int:
    return len(key) + row.nbytes + OVERHEAD
