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

from birnn.assembly import Assembly, by_sequence, encodings, token_encodings
from birnn.base_client import LIST_TIMEOUT, BaseClient, token_vectors_of, vectors_of
from birnn.channel import channel_options
from birnn.encode_call import Chunk, EncodeCall, FeatureCall, Output
from birnn.encoder_listing import encoder_info, find_encoder
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.errors import EncodeError, call_error
from birnn.inputs import Features, Input, Item, as_list, checked_timeout, is_single
from birnn.retries import Retries
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub


class Client(BaseClient):
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

    def _open(self) -> None:
        options = channel_options(self.address)
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self.address, options)
        else:
            self._channel = grpc.secure_channel(self.address, self._credentials, options)
        self._stub = EncoderServiceStub(self._channel)
        self._closed = threading.Event()

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
        return vectors_of(answer, on_error, single=is_single(sequences))

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
        tokens = token_vectors_of(answer, on_error)
        return tokens[0] if is_single(sequences) else tokens

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
        return vectors_of(answer, on_error, single=is_single(features))

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
        return token_vectors_of(answer, on_error)

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
        call = self._call("pooled", encoder, version, truncate, each=timeout)
        for chunk in self._chunks(call, sequences):
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
        call = self._call("tokens", encoder, version, truncate, each=timeout)
        for chunk in self._chunks(call, sequences):
            yield token_encodings(chunk, by_sequence(chunk))

    def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        """What the server serves; an encoder that cannot answer is listed with `ready` false.

        Raises:
            EncodeError: The call failed.
        """
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> grpc.Future:
            left = None if deadline is None else deadline - time.monotonic()
            return self._stub.ListEncoders.future(pb.ListEncodersRequest(), timeout=left)

        reply = self._answer(send(), send, deadline, timeout)
        return [encoder_info(encoder) for encoder in reply.encoders]

    def encoder(
        self, name: str = "smiles", version: str | int | None = None, *, timeout: float | None = LIST_TIMEOUT
    ) -> EncoderInfo:
        """The encoder that answers to this name and version.

        Raises:
            UnknownEncoderError: There is none.
            EncodeError: The call failed.
        """
        return find_encoder(self.encoders(timeout=timeout), name, version, self.address)

    def _assemble(
        self,
        output: Output,
        sequences: Input,
        encoder: str,
        version: str | int | None,
        timeout: float | None,
        truncate: bool,
        kind: type[EncodeCall] = EncodeCall,
    ) -> Assembly:
        items = as_list(sequences)
        if not items:
            return Assembly.of_nothing(self.encoder(encoder, version, timeout=timeout))
        call = self._call(output, encoder, version, truncate, timeout=timeout, kind=kind)
        assembly = Assembly(len(items))
        add = assembly.add_tokens if output == "tokens" else assembly.add_vectors
        for chunk in self._chunks(call, items):
            add(chunk)
        return assembly

    def _chunks(self, call: EncodeCall, sequences: Input) -> Generator[Chunk, None, None]:
        requests = call.requests(sequences)
        pending: deque[tuple[pb.EncodeRequest, grpc.Future]] = deque()

        def send(request: pb.EncodeRequest) -> grpc.Future:
            return self._stub.Encode.future(request, timeout=call.remaining())

        try:
            while True:
                while len(pending) < self._in_flight and (request := next(requests, None)) is not None:
                    pending.append((request, send(request)))
                if not pending:
                    return
                request, future = pending[0]
                reply = self._answer(future, partial(send, request), call.deadline, call.limit)
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
