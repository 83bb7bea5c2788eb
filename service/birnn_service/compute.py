"""What stands between calls and engines: the work that a request is, and whatever does it."""

from typing import Protocol

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.record import record
from birnn_service.catalog import Encoder
from birnn_service.engine.engine import Output
from birnn_service.observe.spans import SpanIds
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed


@record
class Work:
    """What is to be computed for one request.

    Attributes:
        encoder: Which encoder.
        output: One vector a sequence or one a token.
        batch: The sequences, none of them empty.
        caller: Who asks; callers share the device fairly.
        deadline: When the caller gives up, on `time.monotonic`; None for never.
        priority: How urgent it is.
        span: The span of the call, if it is traced.
    """

    encoder: Encoder
    output: Output
    batch: RaggedBatch
    caller: str
    deadline: float | None = None
    priority: Priority = Priority.NORMAL
    span: SpanIds | None = None


class Compute(Protocol):
    """Computes encodings, in this process or in another."""

    async def encode(self, work: Work) -> Computed:
        """Do work on at least one sequence; cancelling takes it out of the queue.

        Raises:
            ServiceError: The batch was not encoded; see `birnn_service.errors`.
        """
