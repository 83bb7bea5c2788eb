"""Requests under way, and the sequences that several of them share while they are in flight."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_service.errors import ServiceError
from birnn_service.queueing.lane import Lane

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The encodings of one request and where their time went, in seconds.

    Attributes:
        values: Pooled: float32 [n, D]. Tokens: float32 [tokens, 2H], sequences back to back.
        queue: From queued to the start of the last of its batches.
        compute: The longest run among its batches.
    """

    values: Values
    queue: float
    compute: float


@dataclass(slots=True, eq=False)
class Work:
    """A request under way.

    Attributes:
        lane: Which output of which encoder it wants.
        batch: Its sequences, `n` of them.
        queued: When it came.
        deadline: When its caller gives up, None for never.
        future: Told when it is done, or why not.
        missing: Rows that are not there yet.
        is_probe: Whether health asks, and nobody else: metrics tell of calls alone.
        started: When the last of its batches so far started.
        compute: The longest run among its batches so far, in seconds.
        values: Its encodings; there from the first delivery on.
        keys: What makes its rows equal to others' [n]; empty where rows are not shared.
        launched: Which rows have left the queue, bool [n].
        followers: By row, the rows of other works (or of this one) that wait for it instead of being computed.
        submissions: Numbers under which its rows wait.
    """

    lane: Lane
    batch: RaggedBatch
    queued: float
    deadline: float | None
    future: "asyncio.Future[Computed]"
    missing: int
    is_probe: bool = False
    started: float = 0.0
    compute: float = 0.0
    values: Values | None = None
    keys: list[bytes] = field(default_factory=list)
    launched: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    followers: dict[int, "list[tuple[Work, int]]"] = field(default_factory=dict)
    submissions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.launched = np.zeros(len(self.batch), dtype=bool)

    def fail(self, error: ServiceError) -> None:
        """End it with an error, unless it has ended."""
        if not self.future.done():
            self.future.set_exception(error)

    def put(self, rows: NDArray[np.int64], values: Values) -> None:
        """Take the pooled encodings [k, D] of the rows at `rows` [k], ascending.

        Raises:
            ValueError: There are not as many encodings as rows.
        """
        if len(values) != len(rows):
            raise ValueError(f"{len(rows)} encodings were expected and {len(values)} came")
        if self.values is None and len(rows) == len(self.batch):
            self.values = values
        else:
            if self.values is None:
                self.values = np.empty((len(self.batch), self.lane.width), dtype=np.float32)
            self.values[rows] = values
        self.missing -= len(rows)

    def put_tokens(self, rows: NDArray[np.int64], values: Values) -> None:
        """Take the per-token encodings [tokens, 2H], sequences back to back, of the rows at `rows` [k], ascending.

        Raises:
            ValueError: There are not as many encodings as tokens.
        """
        lengths = self.batch.lengths[rows]
        if len(values) != lengths.sum():
            raise ValueError(f"{lengths.sum()} encodings were expected and {len(values)} came")
        if self.values is None and len(rows) == len(self.batch):
            self.values = values
            self.missing = 0
            return
        if self.values is None:
            self.values = np.empty((self.batch.tokens, self.lane.width), dtype=np.float32)
        position = 0
        for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
            start = self.batch.offsets[row]
            self.values[start : start + length] = values[position : position + length]
            position += length
        self.missing -= len(rows)


class InFlight:
    """The distinct sequences of one lane that wait or run, so that an equal one need not be computed again."""

    def __init__(self, max_rows: int) -> None:
        """Share rows; `max_rows` is the size of a full batch."""
        self._max_rows = max_rows
        self._leaders: dict[bytes, tuple[Work, int]] = {}

    def join(self, work: Work) -> list[int]:
        """Let the rows of `work` follow equal ones where they are done no later; the others become leaders.

        A row further back in its request than this one in its own might have to wait longer (see `Lane.arrange`), and
        then it is computed twice rather than late.

        Returns:
            The rows that have to be computed.
        """
        leaders = self._leaders
        computed = []
        for row, key in enumerate(work.keys):
            leader = leaders.get(key)
            if leader is None:
                leaders[key] = (work, row)
                computed.append(row)
                continue
            other, place = leader
            if place // self._max_rows <= row // self._max_rows or other.launched[place]:
                other.followers.setdefault(place, []).append((work, row))
            else:
                computed.append(row)
        return computed

    def leave(self, work: Work, rows: list[int]) -> list[tuple[int, Work, int]]:
        """Rows of `work` are done, or will never be: nobody else can join them.

        Returns:
            Who followed them: the row followed, and the work and row that did.
        """
        for row in rows:
            key = work.keys[row]
            if self._leaders.get(key) == (work, row):
                del self._leaders[key]
        if not work.followers:
            return []
        return [(row, other, place) for row in rows for other, place in work.followers.pop(row, ())]

    def lead(self, work: Work, row: int) -> bool:
        """Make a row whose leader is gone the new leader; false where another has taken its place."""
        leader = self._leaders.setdefault(work.keys[row], (work, row))
        if leader == (work, row):
            return True
        leader[0].followers.setdefault(leader[1], []).append((work, row))
        return False
