"""One use of a client, without any I/O: how sequences become requests, and replies one result."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal

import numpy as np

from birnn.encoder_info import EncoderInfo
from birnn.encodings import EmbeddingsT, Encodings, ItemError, ItemErrorCode, ItemNotice, Timings
from birnn.errors import DeadlineError, InconsistentReplyError
from birnn.output import Output
from birnn.v1 import encoder_pb2 as pb

OnError = Literal["raise", "nan"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller chose.

    Attributes:
        encoder: Name of the encoder; "" where exactly one is served.
        version: Its version; None for the highest.
        timeout: Seconds to wait; None for no limit.
        truncate: Cut sequences that are too long instead of failing them.
    """

    encoder: str
    version: str | int | None
    timeout: float | None
    truncate: bool

    @property
    def wire_version(self) -> str:
        """The version as birnn.v1 has it."""
        return "" if self.version is None else str(self.version)


class EncodeCall(Generic[EmbeddingsT]):
    """Encoding some input, which is split into requests.

    Args:
        output: Pooled or per token.
        choice: Encoder, version, timeout (from now on, for all requests together), truncation.
        batch_size: Most sequences in a request for pooled encodings.
    """

    def __init__(self, output: Output[EmbeddingsT], choice: Choice, batch_size: int) -> None:
        self._output = output
        self._choice = choice
        self._batch_size = max(1, batch_size // output.batch_share)
        self._deadline = None if choice.timeout is None else time.monotonic() + choice.timeout
        self._answered_by = ""

    def remaining(self) -> float | None:
        """Seconds until the deadline; None for no limit.

        Raises:
            DeadlineError: It has passed.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(
                f"not finished within the timeout of {self._choice.timeout:g} s; raise it or send fewer sequences"
            )
        return left

    def requests(self, sequences: Iterable[str | bytes]) -> Iterator[pb.EncodeRequest]:
        """Split the input into requests, reading only as far as the next one needs.

        Raises:
            TypeError: An item is neither str nor bytes.
        """
        batch: list[bytes] = []
        size = 0
        for index, sequence in enumerate(sequences):
            raw = _utf8(sequence, index)
            if batch and size + len(raw) > self._output.batch_bytes:
                yield self._request(batch)
                batch, size = [], 0
            batch.append(raw)
            size += len(raw)
            if len(batch) == self._batch_size:
                yield self._request(batch)
                batch, size = [], 0
        if batch:
            yield self._request(batch)

    def _request(self, batch: list[bytes]) -> pb.EncodeRequest:
        return pb.EncodeRequest(
            encoder=self._choice.encoder,
            version=self._choice.wire_version,
            sequences=batch,
            output=self._output.wire,
            truncate=self._choice.truncate,
        )

    def parse(self, request: pb.EncodeRequest, reply: pb.EncodeResponse) -> Encodings[EmbeddingsT]:
        """The reply to one request, with views of its bytes.

        Raises:
            InconsistentReplyError: It does not fit the request, or another version answered than before.
        """
        # Vectors of two versions look alike and must not be mixed.
        answered_by = f"{reply.encoder} version {reply.version}"
        if self._answered_by not in ("", answered_by):
            raise InconsistentReplyError(
                f"{self._answered_by} answered the first sequences and {answered_by} later ones (a new version was put "
                "into service meanwhile): repeat the call, or name a version"
            )
        self._answered_by = answered_by
        count = len(request.sequences)
        lengths = np.array(reply.lengths, dtype=np.int64)
        shape, raw = tuple(reply.shape), reply.embeddings
        rows = self._output.rows(lengths)
        if len(lengths) != count or len(shape) != 2 or shape[0] != rows or len(raw) != shape[0] * shape[1] * 4:
            raise InconsistentReplyError(
                f"{count} sequences were sent, and the reply holds {len(lengths)} lengths and {len(raw)} bytes of shape {shape}"
            )
        return Encodings(
            encoder=reply.encoder,
            version=reply.version,
            embeddings=self._output.views(np.frombuffer(raw, dtype="<f4").reshape(shape), lengths),
            lengths=lengths,
            errors=tuple(ItemError(error.index, ItemErrorCode(error.code), error.reason) for error in reply.errors),
            notices=tuple(
                ItemNotice(notice.index, notice.unknown_tokens, notice.truncated_tokens) for notice in reply.notices
            ),
            timings=(Timings(reply.timings.tokenize, reply.timings.queue, reply.timings.compute, reply.timings.total),),
        )

    def assembly(self, count: int, on_error: OnError) -> "Assembly[EmbeddingsT]":
        """What joins the replies for `count` sequences."""
        return Assembly(self._output, count, on_error)

    def empty(self, info: EncoderInfo) -> Encodings[EmbeddingsT]:
        """The result for no sequences."""
        return Encodings(
            encoder=info.name,
            version=info.version,
            embeddings=self._output.allocate(0, self._output.width(info)),
            lengths=np.empty(0, np.int64),
            errors=(),
            notices=(),
            timings=(),
        )


class Assembly(Generic[EmbeddingsT]):
    """Joins the results of consecutive requests.

    Args:
        output: Pooled or per token.
        count: Number of sequences of all requests.
        on_error: "raise" where a failed sequence is to end it all.
    """

    def __init__(self, output: Output[EmbeddingsT], count: int, on_error: OnError) -> None:
        self._output = output
        self._count = count
        self._on_error = on_error
        self._filled = 0
        self._embeddings: EmbeddingsT | None = None
        self._parts: list[Encodings[EmbeddingsT]] = []
        self._errors: list[ItemError] = []
        self._notices: list[ItemNotice] = []
