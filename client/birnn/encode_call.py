"""Turns the sequences of one input into requests, and holds all replies to one version. It does no I/O."""

import time
from typing import Any, Literal

import numpy as np

from birnn.chunk import Chunk, unpack
from birnn.errors import DeadlineError, InconsistentReplyError
from birnn.inputs import checked_timeout, utf8
from birnn.options import ElementType, Priority, Version
from birnn.v1 import encoder_pb2 as pb

Output = Literal["pooled", "tokens"]

OUTPUTS: dict[Output, pb.Output.ValueType] = {"pooled": pb.OUTPUT_POOLED, "tokens": pb.OUTPUT_TOKENS}
ELEMENT_TYPES: dict[ElementType, pb.ElementType.ValueType] = {
    "float32": pb.ELEMENT_TYPE_FLOAT32,
    "float16": pb.ELEMENT_TYPE_FLOAT16,
    "int8": pb.ELEMENT_TYPE_INT8,
}
PRIORITIES: dict[Priority, pb.Priority.ValueType] = {
    "high": pb.PRIORITY_HIGH,
    "normal": pb.PRIORITY_NORMAL,
    "low": pb.PRIORITY_LOW,
}
# Maximum bytes of sequences in one request. A per-token reply has up to a few KiB for each of these bytes.
LARGEST_REQUEST = {"pooled": 1 << 20, "tokens": 1 << 15}
# A pooled request may hold this many times as many sequences as a per-token request.
TOKENS_SHARE = 8


class EncodeCall:
    """The encoding of one input, split into requests.

    Args:
        output: One vector per sequence ("pooled") or per token ("tokens").
        encoder: Name of the encoder. "" selects the only encoder of a server that serves exactly one.
        version: Version of the encoder. None selects the highest.
        batch_size: Maximum number of sequences in a pooled request. A per-token request holds fewer.
        element_type: Type of the numbers in the replies.
        each: Whether `timeout` applies to each request instead of to all of them together.
        timeout: Seconds to wait for the replies. None sets no limit. A timeout for all requests starts now.
        truncate: Truncate sequences that are too long instead of failing them.
        normalize: Scale each vector to length 1.
        priority: Priority of the requests.

    Raises:
        ValueError: The timeout is NaN, or the priority is unknown.
    """

    def __init__(
        self,
        output: Output,
        encoder: str,
        version: Version,
        *,
        batch_size: int,
        element_type: ElementType = "float32",
        each: bool = False,
        timeout: float | None = None,
        truncate: bool = False,
        normalize: bool = False,
        priority: Priority = "normal",
    ) -> None:
        if priority not in PRIORITIES:
            raise ValueError(f"priority must be one of {', '.join(PRIORITIES)}, not {priority!r}")
        self.output: Output = output
        self.timeout = checked_timeout(timeout)
        self.deadline = None if each or self.timeout is None else time.monotonic() + self.timeout
        self._head = pb.EncodeRequest(
            encoder=encoder,
            version="" if version is None else str(version),
            output=OUTPUTS[output],
            truncate=truncate,
            element_type=ELEMENT_TYPES[element_type],
            normalize=normalize,
            priority=PRIORITIES[priority],
        )
        self._batch_size = max(1, batch_size // TOKENS_SHARE) if output == "tokens" else batch_size
        self._batch_bytes = LARGEST_REQUEST[output]
        # Name and version that answered first. All other replies must come from this version.
        self._answered_by: tuple[str, str] | None = None
        self._seen = 0
        self._batch: list[bytes] = []
        self._size = 0

    def remaining(self) -> float | None:
        """Return the timeout of a request that is sent now, in seconds. None for no limit.

        Raises:
            DeadlineError: The deadline for all requests has passed.
        """
        if self.deadline is None:
            return self.timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"no reply within the timeout of {self.timeout:g} s; raise it or send fewer sequences")
        return left

    def add(self, sequence: Any) -> pb.EncodeRequest | None:
        """Add the next sequence of the input.

        Args:
            sequence: The sequence.

        Returns:
            The request with the sequences before this one, if it is full. Otherwise None.

        Raises:
            TypeError: The item is not a sequence.
        """
        raw = self._encoded(sequence)
        full = len(self._batch) == self._batch_size or self._size + len(raw) > self._batch_bytes
        request = self.flush() if full else None
        self._batch.append(raw)
        self._size += len(raw)
        self._seen += 1
        return request

    def flush(self) -> pb.EncodeRequest | None:
        """Return a request with the sequences added since the last one. None if there are none."""
        if not self._batch:
            return None
        request = pb.EncodeRequest()
        request.CopyFrom(self._head)
        if self._answered_by is not None:
            request.encoder, request.version = self._answered_by
        self._fill(request)
        self._batch, self._size = [], 0
        return request

    def _encoded(self, sequence: Any) -> bytes:
        return utf8(sequence, self._seen)

    def _fill(self, request: pb.EncodeRequest) -> None:
        request.sequences.extend(self._batch)

    @property
    def begun(self) -> bool:
        """Whether a request has been answered."""
        return self._answered_by is not None

    def bind(self, request: pb.EncodeRequest, reply: pb.EncodeResponse) -> bool:
        """Hold all requests of the call to the version that answered first, so that vectors of two are never mixed.

        Args:
            request: The request. If its reply cannot be used, this sets its encoder and version to the first ones.
            reply: The reply to `request`.

        Returns:
            Whether the reply can be used. If not, the server has started to serve another version in the meantime. Send
                the request again.
        """
        answered_by = reply.encoder, reply.version
        if self._answered_by is None:
            self._answered_by = answered_by
        if self._answered_by == answered_by or (request.encoder, request.version) == self._answered_by:
            return True
        request.encoder, request.version = self._answered_by
        return False

    def restart(self) -> None:
        """Start again with the version that answers now. The deadline does not change."""
        self._answered_by = None
        self._seen = 0
        self._batch, self._size = [], 0

    def chunk(self, request: pb.EncodeRequest, reply: pb.EncodeResponse) -> Chunk:
        """Check and unpack the reply to a request.

        Raises:
            InconsistentReplyError: The reply does not match the request, or another version answered an earlier one.
        """
        if self._answered_by != (reply.encoder, reply.version):
            first = " version ".join(self._answered_by or ())
            raise InconsistentReplyError(
                f"{first} answered the first part and {reply.encoder} version {reply.version} a later one, although "
                f"version {request.version} was asked for"
            )
        return unpack(request, reply)


class FeatureCall(EncodeCall):
    """The encoding of sequences of float features. It has the arguments of `EncodeCall`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lengths: list[int] = []
        self._width: int | None = None

    def restart(self) -> None:
        """See `EncodeCall.restart`."""
        super().restart()
        self._lengths = []

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
        # The sequence that did not fit into a request is the first of the next one.
        request.lengths.extend(self._lengths[: len(self._batch)])
        del self._lengths[: len(self._batch)]
