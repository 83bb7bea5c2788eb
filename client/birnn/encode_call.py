"""One use of the client, without any I/O: how sequences become requests, and what a reply says."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import ItemError, ItemErrorCode, ItemNotice, Reply, Timings
from birnn.errors import DeadlineError, InconsistentReplyError
from birnn.inputs import Features, Input, Item, checked_rows, checked_timeout, utf8
from birnn.v1 import encoder_pb2 as pb

Output = Literal["pooled", "tokens"]

# Most bytes of sequences in one request. A per-token reply has up to a few KiB for each of them.
LARGEST_REQUEST = {"pooled": 1 << 20, "tokens": 1 << 15}
# A per-token request has this many times fewer sequences than a pooled one.
TOKENS_SHARE = 8
# Of the numbers in a reply; servers that know only float32 do not say so.
DTYPES: dict[int, np.dtype[Any]] = {
    pb.ELEMENT_TYPE_UNSPECIFIED: np.dtype("<f4"),
    pb.ELEMENT_TYPE_FLOAT32: np.dtype("<f4"),
    pb.ELEMENT_TYPE_FLOAT16: np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk(Reply):
    """The parsed reply to one request; indices count from its own first sequence.

    Attributes:
        matrix: float32 [n, dimension], or [tokens, token_dimension]; a read-only view of the reply, a copy with `half`.
    """

    matrix: NDArray[np.float32]


class EncodeCall:
    """The encoding of some input, split into requests.

    Args:
        output: One vector a sequence ("pooled") or a token ("tokens").
        encoder: Name of the encoder; "" where exactly one is served.
        version: Its version; None for the highest.
        truncate: Cut sequences that are too long instead of failing them.
        batch_size: Most sequences in a request for pooled encodings; fewer go into one for tokens.
        timeout: Seconds from now in which all replies must have come; None for no limit.
        half: Let replies travel as float16.
        each: Seconds for each request, where there is no `timeout` for all; None for no limit.
    """

    def __init__(
        self,
        output: Output,
        encoder: str,
        version: str | int | None,
        truncate: bool,
        batch_size: int,
        timeout: float | None,
        half: bool = False,
        each: float | None = None,
    ) -> None:
        self.encoder = encoder
        self.version = "" if version is None else str(version)
        self._timeout, self._each = checked_timeout(timeout), checked_timeout(each)
        self._truncate = truncate
        self._output: Output = output
        self._half = half
        self._batch_size = max(1, batch_size // TOKENS_SHARE) if output == "tokens" else batch_size
        self._batch_bytes = LARGEST_REQUEST[output]
        self.deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._answered_by = ""
        self._seen = 0
        self._batch: list[bytes] = []
        self._size = 0

    @property
    def limit(self) -> float | None:
        """The timeout that a request may run into, for messages; None for no limit."""
        return self._each if self._timeout is None else self._timeout

    def remaining(self) -> float | None:
        """Seconds that a request sent now may take; None for no limit.

        Raises:
            DeadlineError: The deadline of all has passed.
        """
        if self.deadline is None:
            return self._each
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"no reply within the timeout of {self._timeout:g} s; raise it or send fewer sequences")
        return left

    def requests(self, sequences: Input) -> Iterator[pb.EncodeRequest]:
        """Split the input into requests, reading it only as far as needed for the next.

        Raises:
            TypeError: An item is no sequence.
        """
        for sequence in [sequences] if isinstance(sequences, str | bytes) else checked_rows(sequences):
            if (request := self.add(sequence)) is not None:
                yield request
        if (request := self.flush()) is not None:
            yield request

    def add(self, sequence: Item | Features) -> pb.EncodeRequest | None:
        """Take the next sequence of the input; returns the request before it, once that is full.

        Raises:
            TypeError: It is no sequence.
        """
        raw = self._encoded(sequence)
        full = len(self._batch) == self._batch_size or self._size + len(raw) > self._batch_bytes
        request = self.flush() if full else None
        self._batch.append(raw)
        self._size += len(raw)
        self._seen += 1
        return request

    def flush(self) -> pb.EncodeRequest | None:
        """A request of what was added since the last; None for nothing."""
        if not self._batch:
            return None
        request = pb.EncodeRequest(
            encoder=self.encoder,
            version=self.version,
            output=pb.OUTPUT_TOKENS if self._output == "tokens" else pb.OUTPUT_POOLED,
            truncate=self._truncate,
            element_type=pb.ELEMENT_TYPE_FLOAT16 if self._half else pb.ELEMENT_TYPE_UNSPECIFIED,
        )
        self._fill(request)
        self._batch, self._size = [], 0
        return request

    def _encoded(self, sequence: Any) -> bytes:
        return utf8(sequence, self._seen)

    def _fill(self, request: pb.EncodeRequest) -> None:
        request.sequences.extend(self._batch)

    def parse(self, request: pb.EncodeRequest, reply: pb.EncodeResponse) -> Chunk:
        """Check and unpack the reply to a request.

        Raises:
            InconsistentReplyError: The reply does not fit the request, or another version answered an earlier one.
        """
        self._check_same_encoder(f"{reply.encoder} version {reply.version}")
        lengths = np.array(reply.lengths, dtype=np.int64)
        sent = len(request.sequences) or len(request.lengths)
        rows = int(lengths.sum()) if self._output == "tokens" else sent
        shape, raw, dtype = tuple(reply.shape), reply.embeddings, DTYPES.get(reply.element_type)
        if dtype is None:
            raise InconsistentReplyError(f"the reply holds elements of type {reply.element_type}; update this client")
        if (
            len(lengths) != sent
            or len(shape) != 2
            or shape[0] != rows
            or len(raw) != shape[0] * shape[1] * dtype.itemsize
        ):
            raise InconsistentReplyError(
                f"{sent} sequences were sent, and the reply has {len(lengths)} lengths, shape {shape}, {len(raw)} bytes"
            )
        timings = reply.timings
        return Chunk(
            encoder=reply.encoder,
            version=reply.version,
            engines=(reply.engine,) if reply.engine else (),
            lengths=lengths,
            errors=tuple(ItemError(e.index, ItemErrorCode(e.code), e.reason) for e in reply.errors),
            notices=tuple(ItemNotice(n.index, n.unknown_tokens, n.truncated_tokens) for n in reply.notices),
            timings=(Timings(timings.tokenize, timings.queue, timings.compute, timings.total),),
            matrix=np.frombuffer(raw, dtype=dtype).reshape(shape).astype(np.float32, copy=False),
        )

    def _check_same_encoder(self, answered_by: str) -> None:
        # Vectors of two versions look alike, and must not be compared with each other.
        if self._answered_by and answered_by != self._answered_by:
            raise InconsistentReplyError(
                f"{self._answered_by} answered the first part and {answered_by} a later one; "
                "repeat the call, or name the version"
            )
        self._answered_by = answered_by


class FeatureCall(EncodeCall):
    """The encoding of sequences of float features; arguments as of `EncodeCall`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lengths: list[int] = []
        self._width: int | None = None

    def _encoded(self, sequence: Any) -> bytes:
        values = np.ascontiguousarray(sequence, dtype="<f4")
        if values.ndim != 2:
            raise TypeError(f"sequence {self._seen} has shape {list(values.shape)}; [length, features] expected")
        if self._width not in (None, values.shape[1]):
            raise TypeError(f"sequence {self._seen} has {values.shape[1]} features, and those before it {self._width}")
        self._width = values.shape[1]
        self._lengths.append(len(values))
        return values.tobytes()

    def _fill(self, request: pb.EncodeRequest) -> None:
        request.features = b"".join(self._batch)
        # The sequence that made a request full is the first of the next one.
        request.lengths.extend(self._lengths[: len(self._batch)])
        del self._lengths[: len(self._batch)]
