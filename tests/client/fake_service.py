"""An EncoderService on a real socket whose answers are simple to predict, and which fails on request.

The real server is met in tests/e2e; here it must be possible to be slow, overloaded or wrong.
"""

import hashlib
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from numpy.typing import NDArray

from birnn.v1 import encoder_pb2 as pb
from birnn.v1 import encoder_pb2_grpc as rpc

DIMENSION = 8
TOKEN_DIMENSION = 6
MAX_LENGTH = 40
# How long calls are held where a test fails to let them go.
HOLD_SECONDS = 120


def vector(sequence: str | bytes) -> NDArray[np.float32]:
    """The pooled encoding of a sequence: eight numbers from its digest."""
    raw = sequence.encode() if isinstance(sequence, str) else sequence
    return np.frombuffer(hashlib.sha256(raw).digest(), np.uint8)[:DIMENSION].astype(np.float32) / np.float32(7)


def matrix(sequence: str | bytes) -> NDArray[np.float32]:
    """The per-token encoding of a sequence; a token is a byte."""
    raw = sequence.encode() if isinstance(sequence, str) else sequence
    return np.outer(np.frombuffer(raw, np.uint8), np.arange(1, TOKEN_DIMENSION + 1)).astype(np.float32)


@dataclass
class Failure:
    """How one call ends instead of being answered."""

    code: grpc.StatusCode
    message: str = "told to fail"
    pushback: float | None = None


@dataclass
class StreamEnd:
    """How one stream ends when its request number `after` comes: as if all was well where there is no failure."""

    after: int
    failure: Failure | None = None


@dataclass
class FakeService(rpc.EncoderServiceServicer):
    """Sequences with `!` are unknown characters, those above MAX_LENGTH bytes too long, `?` is an unknown token."""

    address: str = ""
    failures: deque[Failure] = field(default_factory=deque)
    delays: random.Random | None = None
    stall: tuple[float, float] | None = None
    version_of_call: dict[int, str] = field(default_factory=dict)
    # From which call on which versions are served, the newest last.
    versions_from: dict[int, tuple[str, ...]] = field(default_factory=dict)
    engine_of_call: dict[int, str] = field(default_factory=dict)
    drop_a_row: bool = False
    knows: frozenset[str] = frozenset({"EncodeStream", "element_type", "normalize"})
    # Answers of a stream come in groups of so many, the last first.
    reversed_by: int = 1
    wrong_ids: bool = False
    ends: deque[StreamEnd] = field(default_factory=deque)
    streams: int = 0
    streamed: list[pb.EncodeStreamRequest] = field(default_factory=list)
    requests: list[pb.EncodeRequest] = field(default_factory=list)
    attempts: int = 0
    # What came beside the last call of each method.
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None
    never_held: bytes = b""
    held: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ListEncoders(  # noqa: N802
        self, request: pb.ListEncodersRequest, context: grpc.ServicerContext
    ) -> pb.ListEncodersResponse:
        self.metadata["ListEncoders"] = dict(context.invocation_metadata())
        encoders = [
            pb.Encoder(
                name=name,
                version=version,
                architecture="bigru",
                dimension=DIMENSION,
                token_dimension=TOKEN_DIMENSION,
                tokenizer=tokenizer,
                max_length=MAX_LENGTH,
                ready=ready,
            )
            for name, version, tokenizer, ready in (
                ("smiles", "2", "smiles", True),
                ("smiles", "10", "smiles", True),
                ("text", "1", "text", True),
                ("broken", "1", "text", False),
            )
        ]
        return pb.ListEncodersResponse(encoders=encoders)

    def Encode(self, request: pb.EncodeRequest, context: grpc.ServicerContext) -> pb.EncodeResponse:  # noqa: N802
        self.metadata["Encode"] = dict(context.invocation_metadata())
        outcome = self._outcome(request, context)
        if isinstance(outcome, Failure):
            _fail(context, outcome)
        return outcome

    def EncodeStream(  # noqa: N802
        self, request_iterator: Iterator[pb.EncodeStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.EncodeStreamResponse]:
        self.metadata["EncodeStream"] = dict(context.invocation_metadata())
        with self.lock:
            self.streams += 1
            end = self.ends.popleft() if self.ends else None
        if "EncodeStream" not in self.knows:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        group: list[pb.EncodeStreamRequest] = []
        for count, request in enumerate(request_iterator, 1):
            self.streamed.append(request)
            if end is not None and count == end.after:
                if end.failure is not None:
                    _fail(context, end.failure)
                return
            group.append(request)
            if len(group) == self.reversed_by:
                yield from [self._response(request, context) for request in reversed(group)]
                group = []

    def _response(self, request: pb.EncodeStreamRequest, context: grpc.ServicerContext) -> pb.EncodeStreamResponse:
        outcome = self._outcome(request.encode, context)
        number = request.id + 1000 if self.wrong_ids else request.id
        if isinstance(outcome, Failure):
            failure = pb.Failure(code=outcome.code.value[0], message=outcome.message, retry_after=outcome.pushback or 0)
            return pb.EncodeStreamResponse(id=number, failure=failure)
        return pb.EncodeStreamResponse(id=number, response=outcome)

    def _outcome(self, request: pb.EncodeRequest, context: grpc.ServicerContext) -> pb.EncodeResponse | Failure:
        with self.lock:
            self.attempts += 1
            call = len(self.requests)
            if self.failures:
                return self.failures.popleft()
            self.requests.append(request)
            delay = self.delays.uniform(0, 0.02) if self.delays else 0.0
        if request.encoder not in ("smiles", "text"):
            return Failure(grpc.StatusCode.NOT_FOUND, f"no encoder {request.encoder!r}; served are: smiles, text")
        versions = self._versions(call)
        if request.version and versions and request.version not in versions:
            return Failure(grpc.StatusCode.NOT_FOUND, f"no version {request.version}; served are: {versions}")
        if self.never_held not in request.sequences:
            self._hold(context)
        self._wait(delay)
        reply = _answer(request, self.knows)
        reply.version = self.version_of_call.get(call, request.version or (versions or ("10",))[-1])
        reply.engine = self.engine_of_call.get(call, "hash 1, cpu, float32")
        if self.drop_a_row:
            reply.embeddings = reply.embeddings[DIMENSION * 4 :]
        return reply

    def _versions(self, call: int) -> tuple[str, ...]:
        return max(
            ((first, versions) for first, versions in self.versions_from.items() if first <= call), default=(0, ())
        )[1]

    def _hold(self, context: grpc.ServicerContext) -> None:
        if self.hold is not None:
            context.add_callback(self.cancelled.set)
            self.held.set()
            self.hold.wait(HOLD_SECONDS)

    def _wait(self, delay: float) -> None:
        if self.stall is not None:
            start, end = self.stall
            if start <= time.monotonic() < end:
                delay = end - time.monotonic()
        if delay:
            time.sleep(delay)


def _fail(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    if failure.pushback is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(failure.pushback * 1000))
        detail = any_pb2.Any()
        detail.Pack(retry)
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=failure.message, details=[detail])
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                ("grpc-retry-pushback-ms", str(round(failure.pushback * 1000))),
            )
        )
    context.abort(failure.code, failure.message)
    raise AssertionError("abort raises")


def _answer(request: pb.EncodeRequest, knows: frozenset[str]) -> pb.EncodeResponse:
    tokens = request.output == pb.OUTPUT_TOKENS
    reply = pb.EncodeResponse(encoder=request.encoder, timings=pb.Timings(total=0.001))
    rows = []
    for index, sequence in enumerate(_sequences(request)):
        if len(sequence) > MAX_LENGTH and request.truncate:
            reply.notices.add(index=index, truncated_tokens=len(sequence) - MAX_LENGTH)
            sequence = sequence[:MAX_LENGTH]
        if error := _error(sequence):
            code, reason = error
            reply.errors.add(index=index, code=code, reason=reason)
            reply.lengths.append(0)
            rows += [] if tokens else [np.full((1, DIMENSION), np.nan, np.float32)]
            continue
        if b"?" in sequence:
            reply.notices.add(index=index, unknown_tokens=sequence.count(b"?"))
        reply.lengths.append(len(sequence))
        rows.append(matrix(sequence) if tokens else vector(sequence)[None])
    width = TOKEN_DIMENSION if tokens else DIMENSION
    values = np.concatenate([np.empty((0, width), np.float32), *rows])
    if request.normalize and "normalize" in knows:
        values = normalized(values)
    reply.shape.extend(values.shape)
    if "element_type" in knows:
        reply.element_type = request.element_type or pb.ELEMENT_TYPE_FLOAT32
    if reply.element_type == pb.ELEMENT_TYPE_INT8:
        integers, scales = as_int8(values)
        reply.embeddings, reply.scales = integers.tobytes(), scales.tobytes()
    else:
        reply.embeddings = values.astype("<f2" if reply.element_type == pb.ELEMENT_TYPE_FLOAT16 else "<f4").tobytes()
    return reply


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each vector scaled to length 1, but for those of zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def as_int8(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Vectors as int8, and the factor of each."""
    scales = np.abs(vectors).max(axis=-1, initial=0) / np.float32(127)
    integers = np.rint(vectors / np.where(scales == 0, 1, scales)[..., None])
    return np.nan_to_num(integers).astype(np.int8), scales.astype("<f4")


def from_int8(integers: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a client is to make of them."""
    return integers.astype(np.float32) * scales[..., None]


def _sequences(request: pb.EncodeRequest) -> list[bytes]:
    """Those of a request; of features the bytes, of which each is a token."""
    if not request.lengths:
        return list(request.sequences)
    step = len(request.features) // sum(request.lengths)
    ends = np.cumsum(request.lengths) * step
    return [request.features[end - length * step : end] for end, length in zip(ends, request.lengths, strict=True)]


def _error(sequence: bytes) -> tuple[pb.ItemError.Code.ValueType, str] | None:
    if not sequence:
        return pb.ItemError.CODE_EMPTY, "the sequence is empty"
    if b"!" in sequence:
        return pb.ItemError.CODE_UNKNOWN_CHARACTERS, "cannot read '!'"
    if len(sequence) > MAX_LENGTH:
        return pb.ItemError.CODE_TOO_LONG, f"{len(sequence)} tokens, the limit is {MAX_LENGTH}"
    try:
        sequence.decode()
    except UnicodeDecodeError:
        return pb.ItemError.CODE_NOT_UTF8, "not UTF-8"
    return None


@contextmanager
def serving(
    credentials: grpc.ServerCredentials | None = None, port: int = 0, longest_message: int = -1
) -> Iterator[FakeService]:
    """A fake service on a port, 0 for a free one, which takes messages up to a number of bytes, -1 for any."""
    service = FakeService()
    # Without SO_REUSEPORT, which would let a second server have the same port.
    server = grpc.server(
        ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", longest_message)]
    )
    rpc.add_EncoderServiceServicer_to_server(service, server)
    port = (
        server.add_insecure_port(f"127.0.0.1:{port}")
        if credentials is None
        else server.add_secure_port(f"127.0.0.1:{port}", credentials)
    )
    service.address = f"127.0.0.1:{port}"
    server.start()
    try:
        yield service
    finally:
        if service.hold is not None:
            service.hold.set()
        server.stop(None).wait()
