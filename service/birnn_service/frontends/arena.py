"""The arena: memory that one front-end shares with the engine process, for requests and their results.

A block holds a request, offsets int64 [n + 1] and then ids int32 [tokens] or features float32 [tokens, F], and
afterwards, in the same place, its result, float32 [rows, width]. The front-end owns the blocks; the engine process
reads and writes those it is told of.

The memory has no name: it is an anonymous file that goes from the one process to the other as a descriptor. So it ends
with the processes, however they end; it is no part of /dev/shm, which containers keep small; and no other process can
open it.
"""

import mmap
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.errors import InvalidRequestError, OverloadedError, Reason
from birnn_service.frontends.allocator import Allocator
from birnn_service.memory_budget import RETRY_SECONDS, mib

# Memory below this address is kept when it is free; what lies above goes back to the system.
KEEP_BYTES = 64 << 20


def create_memory(size: int, name: str = "arena") -> int:
    """Make an anonymous file of `size` bytes, which takes memory only where it is written; returns its descriptor.

    The name is for people who look at a process.
    """
    # Imported here because Windows has none, where one process does everything.
    import fcntl

    descriptor = os.memfd_create(f"birnn-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    # Neither process can cut the memory off under the other, which would end that with a bus error.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


class Arena:
    """A view of the shared memory, the same from both sides."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory of `descriptor`; it may be closed afterwards."""
        self.size = os.fstat(descriptor).st_size
        self._memory = mmap.mmap(descriptor, self.size)
        self._int32 = np.frombuffer(self._memory, dtype=np.int32)
        self._int64 = np.frombuffer(self._memory, dtype=np.int64)
        self._float32 = np.frombuffer(self._memory, dtype=np.float32)

    def write_batch(self, start: int, batch: RaggedBatch) -> None:
        """Put a request into the block at `start`."""
        first = start // 8
        self._int64[first : first + len(batch.offsets)] = batch.offsets
        first = start // 4 + 2 * len(batch.offsets)
        memory = self._float32 if batch.features else self._int32
        memory[first : first + batch.values.size] = batch.values.reshape(-1)

    def read_batch(self, start: int, sequences: int, tokens: int, features: int = 0) -> RaggedBatch:
        """The request in the block at `start`, of ids or of `features` float features a token.

        A copy, of some two hundred bytes a sequence of ids: a call may end, and its block be another's, while an engine
        still reads the sequences for those who share them.

        Raises:
            ValueError: It lies outside the arena, or is no batch.
        """
        size = _batch_bytes(sequences, tokens, features)
        if start % 8 or start + size > self.size:
            raise ValueError(f"a request of {size} bytes at {start} lies outside the {self.size} bytes of the arena")
        first = start // 8
        offsets = self._int64[first : first + sequences + 1].copy()
        first = start // 4 + 2 * (sequences + 1)
        if features:
            values = self._float32[first : first + tokens * features].copy()
            return RaggedBatch(values.reshape(tokens, features), offsets)
        return RaggedBatch(self._int32[first : first + tokens].copy(), offsets)

    def values(self, start: int, rows: int, width: int) -> NDArray[np.float32]:
        """The result in the block at `start`, a view [rows, width].

        Raises:
            ValueError: It lies outside the arena.
        """
        if start % 4 or start + 4 * rows * width > self.size:
            raise ValueError(f"a result of {rows} x {width} floats at {start} lies outside the arena")
        first = start // 4
        return self._float32[first : first + rows * width].reshape(rows, width)

    def discard(self, start: int, end: int) -> None:
        """Give memory back to the system; whole pages only, and what was there is lost."""
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self._memory.madvise(mmap.MADV_REMOVE, start, end - start)


class Blocks:
    """Hands out the blocks of an arena, on the side of its owner."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._allocator = Allocator(arena.size)

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._allocator.used

    def take(self, batch: RaggedBatch, rows: int, width: int) -> int:
        """Reserve room for a request and its result, and put the request there.

        Returns:
            Where the block starts.

        Raises:
            InvalidRequestError: It would not even fit into an empty arena.
            OverloadedError: Other requests hold the memory.
        """
        size = max(_batch_bytes(len(batch), batch.tokens, batch.features), 4 * rows * width)
        if size > self._allocator.size:
            raise InvalidRequestError(
                f"the request or its reply takes {mib(size)} MiB and a front-end of this server has "
                f"{mib(self._arena.size)}; split the request, or raise --frontend-memory-mib"
            )
        start = self._allocator.allocate(size)
        if start is None:
            raise OverloadedError(
                f"requests under way hold {mib(self.used)} of {mib(self._arena.size)} MiB of a front-end, this one "
                f"needs {mib(size)}; retry later, send fewer sequences in a call, or raise --frontend-memory-mib",
                RETRY_SECONDS,
                Reason.MEMORY,
            )
        self._arena.write_batch(start, batch)
        return start

    def give_back(self, start: int) -> None:
        """Free the block at `start`, and with it the memory that is not kept."""
        used = self._allocator.used
        hole, hole_end = self._allocator.free(start)
        end = start + used - self._allocator.used
        if end > KEEP_BYTES:
            # A page that the block shared with neighbors can go once they are gone too.
            self._arena.discard(
                max(hole, KEEP_BYTES, start // mmap.PAGESIZE * mmap.PAGESIZE),
                min(hole_end, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE),
            )


def pieces(rows: int, row_bytes: int, piece_bytes: int) -> Iterator[slice]:
    """Slices that cut `rows` rows into pieces of about `piece_bytes`, of at least a row each."""
    step = max(1, piece_bytes // max(1, row_bytes))
    return (slice(first, first + step) for first in range(0, rows, step))


def _batch_bytes(sequences: int, tokens: int, features: int) -> int:
    return 8 * (sequences + 1) + 4 * tokens * max(1, features)
