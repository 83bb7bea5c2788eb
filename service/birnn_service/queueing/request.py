"""A request under way: what a caller wants, and what of it is there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.record import record
from birnn_service.errors import ServiceError
from birnn_service.observe.spans import SpanIds
from birnn_service.queueing.caller_flow import HEALTH
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.priority import Priority

Values = NDArray[np.float32]


@record
class Computed:
    """The encodings of one request and where their time went, in seconds.

    Attributes:
        values: Pooled: float32 [n, D]. Tokens: float32 [tokens, 2H], sequences back to back.
        queue: From arrival to the start of the last of its runs.
        compute: The longest of its runs.
        batches: Spans of its runs, if it is traced.
    """

    values: Values
    queue: float
    compute: float
    batches: Sequence[SpanIds] = ()

    @classmethod
    def nothing(cls, width: int) -> Self:
        """The encodings of no sequences, by the width of a vector."""
        return cls(np.empty((0, width), dtype=np.float32), 0.0, 0.0)


@dataclass(slots=True, eq=False)
class Request:
    """A request under way.

    Attributes:
        lane: Which output of which encoder it wants.
        batch: Its sequences, `n` of them.
        caller: Who asks.
        queued: When it arrived.
        deadline: When its caller gives up, None for never.
        future: Its outcome.
        missing: Rows that are not there yet.
        priority: How urgent it is.
        started: When the last of its runs so far started.
        compute: The longest of its runs so far, in seconds.
        values: Its encodings, from the first delivery on.
        keys: What makes its rows equal to others' [n]; empty where rows are not shared.
        launched: Which rows have left the queue, bool [n].
        followers: By row, the rows of other requests (or of this one) that wait for it instead of being computed.
        submissions: Numbers under which its rows wait in the queue.
        span: The span of its call, if that is traced.
        batches: Spans of its runs so far, if it is.
    """

    lane: Lane
    batch: RaggedBatch
    caller: str
    queued: float
    deadline: float | None
    future: "asyncio.Future[Computed]"
    missing: int
    priority: Priority = Priority.NORMAL
    started: float = 0.0
    compute: float = 0.0
    values: Values | None = None
    keys: list[bytes] = field(default_factory=list)
    launched: NDArray[np.bool_] = field(init=False)
    followers: dict[int, "list[tuple[Request, int]]"] = field(default_factory=dict)
    submissions: list[int] = field(default_factory=list)
    span: SpanIds | None = None
    batches: Sequence[SpanIds] = ()

    def __post_init__(self) -> None:
        self.launched = np.zeros(len(self.batch), dtype=bool)

    @property
    def is_probe(self) -> bool:
        """Whether it is a health probe of the server itself, which is no call."""
        return self.caller == HEALTH

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
