"""One use of the client, without any I/O: how sequences become requests, and what a reply says."""

import io
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo, ItemError, ItemErrorCode, ItemNotice, Reply, Timings
from birnn.errors import DeadlineError, InconsistentReplyError, UnknownEncoderError
from birnn.v1 import encoder_pb2 as pb

# A sequence: text, or its UTF-8; or features [length, F].
Item = str | bytes
Features = NDArray[np.floating[Any]]
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
    ) -> None:
        self.encoder = encoder
        self.version = "" if version is None else str(version)
        self.timeout = checked_timeout(timeout)
        self._truncate = truncate
        self._output: Output = output
        self._half = half
        self._batch_size = max(1, batch_size // TOKENS_SHARE) if output == "tokens" else batch_size
        self._batch_bytes = LARGEST_REQUEST[output]
        self._deadline = None if self.timeout is None else time.monotonic() + self.timeout
        self._answered_by = ""
        self._seen = 0
        self._batch: list[bytes] = []
        self._size = 0

    def remaining(self) -> float | None:
        """Seconds until the deadline; None for no limit.

        Raises:
            DeadlineError: It has passed.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"no reply within the timeout of {self.timeout:g} s; raise it or send fewer sequences")
        return left

    @property
    def deadline(self) -> float | None:
        """When all replies must have come, by time.monotonic(); None for no limit."""
        return self._deadline

    def requests(self, sequences: Iterable[Item] | Iterable[Features]) -> Iterator[pb.EncodeRequest]:
        """Split the input into requests, reading it only as far as needed for the next.

        Raises:
            TypeError: An item is no sequence.
        """
        for sequence in checked_rows(sequences):
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
        return _encoded(sequence, self._seen)

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

    def __init__(
        self,
        output: Output,
        encoder: str,
        version: str | int | None,
        truncate: bool,
        batch_size: int,
        timeout: float | None,
        half: bool = False,
    ) -> None:
        super().__init__(output, encoder, version, truncate, batch_size, timeout, half)
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


# What a client may be given: one sequence, or many.
Input = Iterable[Item] | Item | Iterable[Features] | Features


def is_single(sequences: object) -> bool:
    """Whether this is one sequence: a str, bytes or matrix, not many characters or steps."""
    return isinstance(sequences, str | bytes) or (isinstance(sequences, np.ndarray) and sequences.ndim == 2)


def as_list(sequences: Input) -> list[Any]:
    """The sequences as a list.

    Raises:
        TypeError: It is something that does not iterate its rows.
    """
    return [sequences] if is_single(sequences) else list(checked_rows(sequences))


def checked_rows(sequences: Any) -> Any:
    """The input as it is.

    Raises:
        TypeError: It is something that iterates, but not its rows, or not in an order; says what to write instead.
    """
    kind = type(sequences).__name__
    if isinstance(sequences, Mapping):
        advice = "its keys; pass list(x.values()), or one column of it"
    elif hasattr(type(sequences), "columns"):  # of pandas, polars, pyarrow and others
        advice = "its columns; pass one column, for example x['smiles']"
    elif isinstance(sequences, Set):
        advice = "its items in no order, which results cannot be aligned with; pass a list"
    elif isinstance(sequences, bytearray | memoryview):
        advice = "its bytes as numbers; pass bytes(x)"
    elif isinstance(sequences, io.IOBase):
        advice = "its lines with their ends; pass x.read().splitlines()"
    else:
        return sequences
    raise TypeError(f"sequences are given as a {kind}, which iterates {advice}")


def checked_timeout(timeout: float | None) -> float | None:
    """The timeout as it is, None for an infinite one.

    Raises:
        ValueError: It is no number.
    """
    if timeout is None or timeout == math.inf:
        return None
    if math.isnan(timeout):
        raise ValueError("timeout is nan; give seconds, or None for no limit")
    return timeout


def encoder_info(encoder: pb.Encoder) -> EncoderInfo:
    """What ListEncoders says of one encoder."""
    return EncoderInfo(
        name=encoder.name,
        version=encoder.version,
        architecture=encoder.architecture,
        dimension=encoder.dimension,
        token_dimension=encoder.token_dimension,
        pooling=encoder.pooling,
        tokenizer=encoder.tokenizer,
        max_length=encoder.max_length,
        description=encoder.description,
        engine=encoder.engine,
        device=encoder.device,
        precision=encoder.precision,
        ready=encoder.ready,
        features=encoder.features,
    )


def find_encoder(infos: Iterable[EncoderInfo], name: str, version: str | int | None, address: str) -> EncoderInfo:
    """The encoder that would answer.

    Args:
        infos: What the server lists.
        name: The name asked for; "" where exactly one is served.
        version: The version asked for; None for the highest.
        address: The server, for the message.

    Raises:
        UnknownEncoderError: There is none.
    """
    ready = [info for info in infos if info.ready]
    alone = len({info.name for info in ready}) == 1
    matches = [
        info
        for info in ready
        if (info.name == name or (not name and alone)) and (version is None or info.version == str(version))
    ]
    if not matches:
        served = ", ".join(f"{info.name} version {info.version}" for info in ready) or "none that is ready"
        wanted = f"encoder {name!r}" if version is None else f"encoder {name!r} version {version}"
        raise UnknownEncoderError(f"{wanted} is not served at {address}; served: {served}")
    # Versions are counting numbers.
    return max(matches, key=lambda info: (len(info.version), info.version))


def _encoded(sequence: Item, index: int) -> bytes:
    if isinstance(sequence, bytes):
        return sequence
    if isinstance(sequence, str):
        # A lone surrogate has no UTF-8: what is sent for it fails alone, as NOT_UTF8.
        return sequence.encode("utf-8", "surrogatepass")
    hint = "; float features go to encode_features" if isinstance(sequence, np.ndarray) else ""
    if isinstance(sequence, Mapping):
        hint = "; pass one column: [row['smiles'] for row in rows]"
    kind = type(sequence).__name__
    raise TypeError(f"sequence {index} is {sequence!r:.80}, a {kind}, and not a str or bytes{hint}")
