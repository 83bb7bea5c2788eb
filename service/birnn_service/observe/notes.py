"""What is noted of a call that is traced or logged, as it goes on its way."""

from collections.abc import Sequence
from dataclasses import dataclass

from birnn_bundle.ragged import RaggedBatch
from birnn_service.observe.spans import SpanIds


@dataclass(slots=True, eq=False)
class Notes:
    """What is noted of a call. Times are on `time.perf_counter`, and 0 for stages that it did not reach.

    Attributes:
        ids: Its span; None for a call that is logged only.
        parent: The span of its caller, if there is one.
        state: Its header `tracestate`.
        logged: Whether it gets a line in the access log.
        content_bytes: How much of its sequences may be noted.
        received: When its request had been read.
        tokenizing, tokenized: When tokenizing began and ended.
        sequences, tokens: How many it asked for, and how many tokens of them are encoded.
        content: The beginning of its sequences, where that is asked for.
        batches: Spans of the batches that it was part of.
    """

    ids: SpanIds | None = None
    parent: SpanIds | None = None
    state: str = ""
    logged: bool = False
    content_bytes: int = 0
    received: float = 0.0
    tokenizing: float = 0.0
    tokenized: float = 0.0
    sequences: int = 0
    tokens: int = 0
    content: Sequence[str] = ()
    batches: Sequence[SpanIds] = ()

    def begin_tokenizing(self, sequences: Sequence[bytes] | RaggedBatch, now: float) -> None:
        """Its sequences are about to be tokenized."""
        self.tokenizing, self.sequences = now, len(sequences)
        if self.content_bytes:
            self.content = excerpt(sequences, self.content_bytes)


def excerpt(sequences: Sequence[bytes] | RaggedBatch, most: int) -> list[str]:
    """The first sequences, of `most` bytes together; ids as decimal numbers, and nothing of features."""
    found: list[str] = []
    for number in range(len(sequences)):
        if most <= 0:
            break
        if isinstance(sequences, RaggedBatch):
            if sequences.features:
                break
            start, end = sequences.offsets[number : number + 2].tolist()
            # An id takes two bytes at least.
            text = " ".join(map(str, sequences.values[start : min(end, start + most)].tolist())).encode()
        else:
            text = sequences[number]
        found.append(bytes(text[:most]).decode(errors="replace"))
        most -= max(1, len(text))
    return found
