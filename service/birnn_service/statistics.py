"""How often each version of each encoder was called, and where the time of its calls went, for the whole server.

What is counted where:

- The process that takes a call counts it once it has ended, over whatever protocol it came: whether it succeeded, its
  time, the parts of its time, and its sequences. With front-ends that is a front-end.
- The process that owns the engines counts batches and what it looks up in the response cache.

Each process counts in rows of its own, in one table in memory that all of them share. The process that is asked adds
them up. So an answer is complete at every moment, whichever process gives it. What a front-end has counted stays when
it ends, and the one that takes its place counts on from there. Health probes are counted nowhere.

Each load of a version has a row, which begins at zero. When it is unloaded, its row is free for another one.
"""

import mmap
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from birnn_service.call import Call
from birnn_service.catalog import Encoder
from birnn_service.errors import StartupError
from birnn_service.frontends.arena import create_memory

NANOSECONDS = 1e9


class Part(IntEnum):
    """What is counted with the time that it took."""

    SUCCESS = 0
    FAIL = auto()
    QUEUE = auto()
    TOKENIZE = auto()
    COMPUTE = auto()
    REPLY = auto()
    HIT = auto()
    MISS = auto()


@dataclass(frozen=True, slots=True)
class Tally:
    """How often, and for how many nanoseconds in all."""

    count: int
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What the whole server has counted of one version of one encoder.

    Attributes:
        last: When the last call that succeeded ended, in milliseconds since the epoch; 0 for never.
        sequences: Sequences encoded in calls that succeeded.
        parts: Calls by outcome, the parts of the time of those that succeeded, and sequences looked up in the cache.
        batches: Batches run, by their number of sequences.
    """

    last: int
    sequences: int
    parts: Mapping[Part, Tally]
    batches: Mapping[int, Tally]


# Numbers of a row: when the last call ended, sequences, and count and nanoseconds of each part.
_LAST, _SEQUENCES, _PARTS = 0, 1, 2
_ROW = _PARTS + 2 * len(Part)
# Batches of as many sequences or more are counted together. No engine of ours runs larger ones.
_SIZES = 1 + 1024
MOST_ROWS = 1024
"""Most instances of encoders that are loaded at a time."""


class Statistics:
    """One process's hand in the table, and the sums of it.

    The table: int64 [processes, MOST_ROWS, _ROW], and behind it count and nanoseconds of batches by their size, int64
    [MOST_ROWS, sizes, 2], which only the process with the engines writes. Memory is taken only where it is written.
    """

    def __init__(
        self, encoders: Iterable[Encoder] = (), processes: int = 1, process: int = 0, descriptor: int | None = None
    ) -> None:
        """Count for `encoders`, and for others that are added later.

        Args:
            encoders: What is counted; in the same order in all processes.
            processes: How many count.
            process: Which of them this one is; 0 has the engines.
            descriptor: Of the memory that they share, in all processes but the first, which makes it.
        """
        self._rows: dict[int, int] = {}
        size = 8 * MOST_ROWS * (processes * _ROW + 2 * _SIZES)
        # Elsewhere a server with front-ends does not start.
        if descriptor is None and processes > 1 and sys.platform == "linux":
            descriptor = create_memory(size, "statistics")
        self.descriptor = descriptor
        """Of the shared memory, for other processes; None where there are none."""
        memory = mmap.mmap(-1 if descriptor is None else descriptor, size)
        self._numbers = memoryview(memory).cast("q")
        # Faster to add up, and slower to add to.
        table = np.frombuffer(memory, dtype=np.int64)
        self._process = process
        self._own = process * MOST_ROWS * _ROW
        self._behind = processes * MOST_ROWS * _ROW
        self._table = table[: self._behind].reshape(processes, MOST_ROWS, _ROW)
        self._batches = table[self._behind :].reshape(-1, _SIZES, 2)
        for encoder in encoders:
            self.add(encoder)

    def add(self, encoder: Encoder, row: int | None = None) -> None:
        """Count for an encoder, too.

        Args:
            encoder: Which one.
            row: Its row, which the process with the engines chose; None in that process, which takes a free one.

        Raises:
            StartupError: There is none left.
        """
        if row is None:
            taken = set(self._rows.values())
            row = next((row for row in range(MOST_ROWS) if row not in taken), MOST_ROWS)
            if row == MOST_ROWS:
                raise StartupError(f"{MOST_ROWS} versions of encoders are served already; unload some")
            if self._process == 0:
                self._table[:, row] = 0
                self._batches[row] = 0
        self._rows[encoder.instance] = row

    def row(self, encoder: Encoder) -> int:
        """The row of an encoder, for other processes."""
        return self._rows[encoder.instance]

    def remove(self, encoder: Encoder) -> None:
        """Stop counting for an encoder that is no longer called, in any process."""
        self._rows.pop(encoder.instance, None)

    def count_call(self, call: Call, *, well: bool) -> None:
        """Count a call that has ended, if it was for an encoder."""
        if call.encoder is None:
            return
        row, seconds, spent = self._row(call.encoder.instance), call.seconds, call.spent
        self._add(row, Part.SUCCESS if well else Part.FAIL, 1, seconds)
        if not well or spent is None:
            return
        self._numbers[row + _LAST] = time.time_ns() // 1_000_000
        self._numbers[row + _SEQUENCES] += spent.sequences
        self._add(row, Part.QUEUE, 1, spent.queue)
        self._add(row, Part.TOKENIZE, 1, spent.tokenize)
        self._add(row, Part.COMPUTE, 1, spent.compute)
        self._add(row, Part.REPLY, 1, seconds - spent.until)

    def count_batch(self, instance: int, sequences: int, seconds: float) -> None:
        """Count a batch that the engine ran."""
        place = self._behind + 2 * (self._rows[instance] * _SIZES + min(sequences, _SIZES - 1))
        self._numbers[place] += 1
        self._numbers[place + 1] += round(NANOSECONDS * seconds)

    def count_look_ups(self, instance: int, hits: int, misses: int, seconds: float) -> None:
        """Count sequences that were looked up in the response cache, and share out the time that it took."""
        row, each = self._row(instance), seconds / (hits + misses)
        self._add(row, Part.HIT, hits, hits * each)
        self._add(row, Part.MISS, misses, misses * each)

    def of(self, instance: int) -> Totals:
        """What all processes have counted so far."""
        row = self._rows[instance]
        counted = self._table[:, row]
        sums = counted.sum(axis=0).tolist()
        batches = self._batches[row].tolist()
        return Totals(
            last=int(counted[:, _LAST].max()),
            sequences=sums[_SEQUENCES],
            parts={part: Tally(*sums[_PARTS + 2 * part : _PARTS + 2 * part + 2]) for part in Part},
            batches={size: Tally(*tally) for size, tally in enumerate(batches) if tally[0]},
        )

    def _row(self, instance: int) -> int:
        """Where this process's numbers of an encoder begin."""
        return self._own + self._rows[instance] * _ROW

    def _add(self, row: int, part: Part, count: int, seconds: float) -> None:
        place = row + _PARTS + 2 * part
        self._numbers[place] += count
        self._numbers[place + 1] += round(NANOSECONDS * seconds)
