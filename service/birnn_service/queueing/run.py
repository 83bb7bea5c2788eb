"""A run: one batch on its way through an engine."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.record import record
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.request import Request, Values


@record
class Part:
    """Rows of one request that run together, at `rows` [k] in its batch, ascending."""

    request: Request
    rows: NDArray[np.int64]

    @property
    def batch(self) -> RaggedBatch:
        """Its sequences."""
        batch = self.request.batch
        return batch if len(self.rows) == len(batch) else batch.take(self.rows)


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """One batch on its way through an engine.

    Attributes:
        lane: Whose engine runs it.
        parts: The rows of each request in it, in the order of the batch.
        slots: Slots that it occupies.
        started: When it started.
        batch: All its sequences.
    """

    lane: Lane
    parts: list[Part]
    slots: int
    started: float
    batch: RaggedBatch = field(init=False)

    def __post_init__(self) -> None:
        self.batch = RaggedBatch.concatenate([part.batch for part in self.parts])

    @property
    def is_probe(self) -> bool:
        """Whether it is of health probes alone."""
        return all(part.request.is_probe for part in self.parts)

    def compute(self) -> Values:
        """Run the engine; on a worker thread, unless the batch is short."""
        return self.lane.engine.run(self.batch, self.lane.output, self.slots)
