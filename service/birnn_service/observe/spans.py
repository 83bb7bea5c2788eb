"""Spans, before OpenTelemetry has a part in them: a server that exports none does not import it."""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

from birnn_bundle.record import record

Attribute = str | bool | int | float | Sequence[str]
# A span has at most this many links, OpenTelemetry's own default being 128; of more calls the first are linked.
MOST_LINKS = 32
NANOSECONDS = 1_000_000_000
# Size of the name of a span in messages between processes.
SPAN_BYTES = 24


class SpanIds(NamedTuple):
    """The name of a span: the 128 bits of its trace, and 64 of its own; neither is 0."""

    trace: int
    span: int

    @classmethod
    def root(cls) -> Self:
        """A new span in a new trace."""
        return cls(random.getrandbits(128) or 1, random.getrandbits(64) or 1)

    def child(self) -> Self:
        """A new span in the same trace."""
        return type(self)(self.trace, random.getrandbits(64) or 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """What `pack` has written.

        Raises:
            ValueError: It is of another size.
        """
        if len(packed) != SPAN_BYTES:
            raise ValueError(f"the name of a span has {SPAN_BYTES} bytes, got {len(packed)}")
        return cls(int.from_bytes(packed[:16], "big"), int.from_bytes(packed[16:], "big"))

    def pack(self) -> bytes:
        """Its `SPAN_BYTES` bytes."""
        return self.trace.to_bytes(16, "big") + self.span.to_bytes(8, "big")

    @property
    def trace_text(self) -> str:
        """The trace in hexadecimal digits, as logs and exemplars have it."""
        return f"{self.trace:032x}"

    @property
    def span_text(self) -> str:
        """The span in hexadecimal digits."""
        return f"{self.span:016x}"


@record
class FinishedSpan:
    """A span that has ended.

    Attributes:
        name: What was done.
        ids: Its own.
        started, ended: In nanoseconds since the epoch.
        parent: Within which span it was; None for the root of a trace.
        remote: Whether that span is another process's, the caller's.
        state: The header `tracestate` of the caller.
        kind: Whether it answers a caller, or is work within the server.
        attributes: What is to be known of it.
        links: Spans of other traces that it has to do with.
        failure: Why it counts as failed, in words that hold nothing of a request; None for one that does not.
    """

    name: str
    ids: SpanIds
    started: int
    ended: int
    parent: SpanIds | None = None
    remote: bool = False
    state: str = ""
    kind: Literal["server", "internal"] = "internal"
    attributes: Mapping[str, Attribute] | None = None
    links: Sequence[SpanIds] = ()
    failure: str | None = None
