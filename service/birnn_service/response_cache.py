"""The response cache: pooled encodings of the sequences that were asked for last."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# What Python keeps beside the bytes of a key and of a row: two objects' headers and an entry of the table.
OVERHEAD = 250


class ResponseCache:
    """A least-recently-used cache of encodings by encoder version and exact token ids, bounded in bytes.

    Not for several threads at a time: it belongs to the event loop.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes` bytes; at 0 nothing is kept."""
        self._max_bytes = max_bytes
        self._rows: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def enabled(self) -> bool:
        """Whether anything may be kept."""
        return self._max_bytes > 0

    def get(self, encoder: str, key: bytes) -> NDArray[np.float32] | None:
        """The encoding [D] of a sequence, which is now the one asked for last; None where it is not kept.

        Args:
            encoder: What tells the encoder and version apart from every other.
            key: What tells the sequence apart, from `RaggedBatch.keys`.
        """
        row = self._rows.get((encoder, key))
        if row is not None:
            self._rows.move_to_end((encoder, key))
        return row

    def put(self, encoder: str, key: bytes, row: NDArray[np.float32]) -> None:
        """Keep a copy of an encoding [D], and forget those not asked for the longest where it gets too much."""
        size = _size(key, row)
        if size > self._max_bytes:
            return
        if (encoder, key) in self._rows:
            self._rows.move_to_end((encoder, key))
            return
        # A copy: a view would keep the whole batch alive.
        self._rows[encoder, key] = row.copy()
        self.bytes += size
        while self.bytes > self._max_bytes:
            (_, oldest), old = self._rows.popitem(last=False)
            self.bytes -= _size(oldest, old)


def _size(key: bytes, row: NDArray[np.float32]) -> int:
    return len(key) + row.nbytes + OVERHEAD
