"""The client for ordinary (synchronous) code."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc
import numpy as np
from numpy.typing import NDArray

from birnn import encode_call
from birnn.assembly import Assembly, by_sequence, encodings, token_encodings
from birnn.channel import DEFAULT_ADDRESS, channel_options, checked_address
from birnn.encode_call import Chunk, EncodeCall, FeatureCall, Features, Item
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.errors import EncodeError, call_error
from birnn.retries import RETRY_FOR, Outage, Retries
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub

LIST_TIMEOUT = 10.0


class Client:
    """Encodes sequences with a birnn server.

    A client may be used by several threads, and connects when it is first used. Large inputs are split into calls of
    `batch_size` sequences, several of them in flight, and come back in order. A call is repeated while its server is
    unavailable, for example restarts (see `retry_for`), and up to four times while it is overloaded.

    Args:
        address: HOST:PORT, or any gRPC target: dns:///host:port for all addresses of a name, ipv4:HOST:PORT,HOST:PORT
            for several servers, unix:/path.
        credentials: TLS credentials (`grpc.ssl_channel_credentials(...)`); None for a connection in the clear.
        batch_size: Most sequences in one call for pooled encodings; an eighth of it for per-token ones.
        in_flight: Most calls under way at a time for one input.
        half: Let replies travel as float16: half the bytes, each number rounded to 11 significant bits. Results are
            float32 all the same; a sequence with a number beyond 65,504 fails as OUT_OF_RANGE.
        retry_for: Seconds for which a call is repeated, with back-off, while the server is unavailable; never beyond
            the call's timeout. 0 repeats nothing.

    Raises:
        ValueError: The address has no port, or a number is too small.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        batch_size: int = 512,
        in_flight: int = 4,
        half: bool = False,
        retry_for: float = RETRY_FOR,
    ) -> None:
        if batch_size < 1 or in_flight < 1:
            raise ValueError(f"batch_size and in_flight must be at least 1, not {batch_size} and {in_flight}")
        if not retry_for >= 0:
            raise ValueError(f"retry_for must be at least 0 seconds, not {retry_for}")
        self.address = checked_address(address)
        self._outage = Outage(address, retry_for)
        self._credentials = credentials
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._half = half
        options = channel_options(address)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._stub = EncoderServiceStub(self._channel)
        self._closed = threading.Event()

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[()]]:
        """Address and options; the copy has a connection of its own.

        Raises:
            TypeError: The client has credentials, which cannot be pickled.
        """
        if self._credentials is not None:
            raise TypeError("a client with credentials cannot be pickled; make one where it is needed")
        return partial(
            type(self),
            self.address,
            batch_size=self._batch_size,
            in_flight=self._in_flight,
            half=self._half,
            retry_for=self._outage.retry_for,
        ), ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._closed.set()
        self._channel.close()

    def encode(
        self,
        sequences: Iterable[Item] | Item,
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Encode sequences, one vector each.

        Args:
            sequences: Strings, or bytes in UTF-8; or a single one.
            encoder: Name of the encoder; "" where exactly one is served.
            version: Its version; None for the highest.
            timeout: Seconds for the whole input; None for no limit.
            truncate: Cut sequences longer than the encoder's `max_length` instead of failing them.
            on_error: What becomes of a sequence that cannot be encoded: "raise" a SequenceError that names all of
                them, or fill its row with "nan".

        Returns:
            float32 [n, dimension], aligned with `sequences`; for a single one [dimension].

        Raises:
            SequenceError: Some sequences cannot be encoded, and `on_error` is "raise".
            EncodeError: The call failed; the subclass says how.
            TypeError: A sequence is neither str nor bytes, or `sequences` does not iterate its rows, as a dict or a
                DataFrame.
        """
        answer = self._assemble("pooled", sequences, encoder, version, timeout, truncate)
        if on_error == "raise":
            answer.raise_errors()
        vectors = answer.encodings().vectors
        return vectors[0] if encode_call.is_single(sequences) else vectors

    @overload
    def encode_tokens(  # type: ignore[overload-overlap]
        self,
        sequences: Item,
        encoder: str = ...,
        version: str | int | None = ...,
        *,
        timeout: float | None = ...,
        truncate: bool = ...,
        on_error: Literal["raise", "empty"] = ...,
    ) -> NDArray[np.float32]: ...

    @overload
    def encode_tokens(
        self,
        sequences: Iterable[Item],
        encoder: str = ...,
        version: str | int | None = ...,
        *,
        timeout: float | None = ...,
        truncate: bool = ...,
        on_error: Literal["raise", "empty"] = ...,
    ) -> list[NDArray[np.float32]]: ...

    def encode_tokens(
        self,
        sequences: Iterable[Item] | Item,
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "empty"] = "raise",
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        """Encode sequences, one vector a token. Arguments and errors as in `encode`.

        Returns:
            For each sequence float32 [length, token_dimension], forward and backward outputs concatenated; for a
            single sequence the array alone. With `on_error="empty"` a failed sequence has no rows. The arrays are
            read-only views of the replies (copies with `half`): copy one to write to it.
        """
        answer = self._assemble("tokens", sequences, encoder, version, timeout, truncate)
        if on_error == "raise":
            answer.raise_errors()
        tokens = answer.token_encodings().tokens
        return tokens[0] if encode_call.is_single(sequences) else tokens

    def encode_features(
        self,
        features: Iterable[Features] | Features,
        encoder: str,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Encode sequences of float features, one vector each. Other arguments and errors as in `encode`.

        Args:
            features: Arrays [length, F], F being the encoder's `features`; sent as float32. Or a single one.
            encoder: Name of the encoder.
            version: As in `encode`.
            timeout: As in `encode`.
            truncate: As in `encode`.
            on_error: As in `encode`.

        Returns:
            float32 [n, dimension], aligned with `features`; for a single array [dimension].

        Raises:
            TypeError: A sequence is no matrix, or has another width than the others.
        """
        answer = self._assemble("pooled", features, encoder, version, timeout, truncate, FeatureCall)
        if on_error == "raise":
            answer.raise_errors()
        vectors = answer.encodings().vectors
        return vectors[0] if encode_call.is_single(features) else vectors

    def encode_feature_tokens(
        self,
        features: Iterable[Features],
        encoder: str,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "empty"] = "raise",
    ) -> list[NDArray[np.float32]]:
        """Encode sequences of float features, one vector a step; see `encode_features` and `encode_tokens`."""
        answer = self._assemble("tokens", features, encoder, version, timeout, truncate, FeatureCall)
        if on_error == "raise":
            answer.raise_errors()
        return answer.token_encodings().tokens

    def call(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Encodings:
        """As `encode`, with all that the server says: errors and notices by sequence, lengths, version, timings.

        Raises:
            EncodeError: The call failed. Sequences that cannot be encoded raise nothing: see `Encodings.errors`.
        """
        return self._assemble("pooled", sequences, encoder, version, timeout, truncate).encodings()

    def call_tokens(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> TokenEncodings:
        """As `encode_tokens`, with all that the server says; see `call`."""
        return self._assemble("tokens", sequences, encoder, version, timeout, truncate).token_encodings()

    def stream(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Iterator[Encodings]:
        """Encode an input of any length in bounded memory.

        The input is read no further ahead than `in_flight` calls of `batch_size` sequences. Stopping early cancels the
        calls under way.

        Args:
            sequences: As in `encode`.
            encoder: As in `encode`.
            version: As in `encode`.
            timeout: Seconds for each call; None for no limit.
            truncate: As in `encode`.

        Yields:
            The results of consecutive parts of the input, in order; `errors` and `notices` of a part count from its
            own first sequence.

        Raises:
            EncodeError: A call failed. Sequences that cannot be encoded raise nothing.
        """
        call = EncodeCall("pooled", encoder, version, truncate, self._batch_size, None, self._half)
        for chunk in self._chunks(call, sequences, timeout):
            yield encodings(chunk)

    def stream_tokens(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Iterator[TokenEncodings]:
        """As `stream`, one vector a token."""
        call = EncodeCall("tokens", encoder, version, truncate, self._batch_size, None, self._half)
        for chunk in self._chunks(call, sequences, timeout):
            yield token_encodings(chunk, by_sequence(chunk))

    def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        """What the server serves; an encoder that cannot answer is listed with `ready` false.

        Raises:
            EncodeError: The call failed.
        """
        timeout = encode_call.checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> grpc.Future:
            left = None if deadline is None else deadline - time.monotonic()
            return self._stub.ListEncoders.future(pb.ListEncodersRequest(), timeout=left)

        reply = self._answer(send(), send, deadline, timeout)
        return [encode_call.encoder_info(encoder) for encoder in reply.encoders]

    def encoder(
        self, name: str = "smiles", version: str | int | None = None, *, timeout: float | None = LIST_TIMEOUT
    ) -> EncoderInfo:
        """The encoder that answers to this name and version.

        Raises:
            UnknownEncoderError: There is none.
            EncodeError: The call failed.
        """
        return encode_call.find_encoder(self.encoders(timeout=timeout), name, version, self.address)

    def _assemble(
        self,
        output: encode_call.Output,
        sequences: encode_call.Input,
        encoder: str,
        version: str | int | None,
        timeout: float | None,
        truncate: bool,
        kind: type[EncodeCall] = EncodeCall,
    ) -> Assembly:
        items = encode_call.as_list(sequences)
        if not items:
            return Assembly.of_nothing(self.encoder(encoder, version, timeout=timeout))
        call = kind(output, encoder, version, truncate, self._batch_size, timeout, self._half)
        assembly = Assembly(len(items))
        add = assembly.add_tokens if output == "tokens" else assembly.add_vectors
        for chunk in self._chunks(call, items):
            add(chunk)
        return assembly

    def _chunks(
        self, call: EncodeCall, sequences: encode_call.Input, timeout: float | None = None
    ) -> Generator[Chunk, None, None]:
        items = [sequences] if isinstance(sequences, str | bytes) else sequences
        requests = call.requests(items)
        pending: deque[tuple[pb.EncodeRequest, grpc.Future]] = deque()
        each = encode_call.checked_timeout(timeout)

        def send(request: pb.EncodeRequest) -> grpc.Future:
            return self._stub.Encode.future(request, timeout=each if call.timeout is None else call.remaining())

        try:
            while True:
                while len(pending) < self._in_flight and (request := next(requests, None)) is not None:
                    pending.append((request, send(request)))
                if not pending:
                    return
                request, future = pending[0]
                limit = each if call.timeout is None else call.timeout
                reply = self._answer(future, partial(send, request), call.deadline, limit)
                pending.popleft()
                yield call.parse(request, reply)
        finally:
            for _, future in pending:
                future.cancel()

    def _answer(
        self, future: grpc.Future, send: Callable[[], grpc.Future], deadline: float | None, timeout: float | None
    ) -> Any:
        """The reply to a call, which is sent again where that may help."""
        retries = Retries(self._outage, deadline)
        try:
            while True:
                try:
                    reply = future.result()
                except (grpc.RpcError, grpc.FutureCancelledError) as error:
                    closed = self._closed.is_set() or isinstance(error, grpc.FutureCancelledError)
                    pause = None if closed else retries.pause(error)
                    if closed or (pause is not None and self._closed.wait(pause)):
                        message = "the client was closed during the call"
                        raise EncodeError(message, grpc.StatusCode.CANCELLED) from error
                    if pause is None:
                        raise call_error(error, self.address, timeout) from error
                    future = send()
                else:
                    self._outage.over()
                    return reply
        finally:
            future.cancel()
