"""Which bytes of a memory are whose. Pure bookkeeping; nothing here touches the memory."""

from bisect import bisect_left

# A cache line: two blocks never share one, and every array of a block is aligned.
ALIGNMENT = 64


class Allocator:
    """First fit, from the lowest address up: what little is in use stays where the memory is warm."""

    def __init__(self, size: int) -> None:
        """Hand out the bytes from 0 to `size`, rounded down to whole lines."""
        self.size = size // ALIGNMENT * ALIGNMENT
        # Where holes start and end, ascending; no two of them touch.
        self._starts = [0] if self.size else []
        self._ends = [self.size] if self.size else []
        self._blocks: dict[int, int] = {}
        self.used = 0

    def allocate(self, size: int) -> int | None:
        """Take `size` bytes, at least 1; returns where they begin, or None where no hole is large enough."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        for hole, start in enumerate(self._starts):
            left = self._ends[hole] - start - size
            if left < 0:
                continue
            if left:
                self._starts[hole] = start + size
            else:
                del self._starts[hole], self._ends[hole]
            self._blocks[start] = size
            self.used += size
            return start
        return None

    def free(self, start: int) -> tuple[int, int]:
        """Give back the block that begins at `start`.

        Returns:
            Where the hole that it is part of now starts and ends.

        Raises:
            KeyError: No block begins there.
        """
        size = self._blocks.pop(start)
        self.used -= size
        end = start + size
        # The hole before ends where this block starts, at most; the one behind starts where it ends, at least.
        after = bisect_left(self._starts, start)
        if after < len(self._starts) and self._starts[after] == end:
            end = self._ends[after]
            del self._starts[after], self._ends[after]
        if after and self._ends[after - 1] == start:
            start = self._starts[after - 1]
            self._ends[after - 1] = end
        else:
            self._starts.insert(after, start)
            self._ends.insert(after, end)
        return start, end
