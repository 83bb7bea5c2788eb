"""The base class of both clients: the options of the constructor, and the documentation of each method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self, Unpack

import grpc

from birnn.channel import DEFAULT_ADDRESS, checked_address
from birnn.connection import Connection
from birnn.core import Core
from birnn.encode_call import ELEMENT_TYPES
from birnn.metadata import call_metadata
from birnn.options import ElementType, Options, TokenOptions, VectorOptions, Version
from birnn.retries import RETRY_FOR
from birnn.tls import Tls

# Default timeout of `encoders` and `encoder`, in seconds.
LIST_TIMEOUT = 10.0


class BaseClient(ABC):
    """The methods of `Client` and `AsyncClient`. In `AsyncClient` they are coroutines and asynchronous iterators."""

    _connect: ClassVar[type[Connection]]

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        metadata: Mapping[str, str] | None = None,
        batch_size: int = 512,
        in_flight: int = 4,
        element_type: ElementType = "float32",
        retry_for: float = RETRY_FOR,
    ) -> None:
        """Create a client for one server, or for several servers that serve the same encoders.

        Args:
            address: HOST:PORT, or any gRPC target: dns:///host:port for all addresses of a name,
                ipv4:HOST:PORT,HOST:PORT for several servers, or unix:/path.
            tls: TLS settings: `Tls()`, or `Tls(ca="ca.pem")` if this system does not trust the server's authority. None
                for an unencrypted connection.
            credentials: Other gRPC credentials, used instead of `tls`.
            token: A bearer token or JWT, sent with every call. Without TLS it travels unencrypted.
            metadata: More metadata to send with every call, by key.
            batch_size: Maximum number of sequences in one request for pooled encodings. Requests for per-token
                encodings hold an eighth as many.
            in_flight: Maximum number of requests in flight for one input.
            element_type: How the numbers in replies travel. "float16" takes half the bytes of "float32": each number is
                rounded to 11 significant bits, and a sequence with a number beyond 65,504 fails with OUT_OF_RANGE.
                "int8" takes a quarter: each number is rounded to a multiple of 1/127 of the largest number in its
                vector. Results are always float32.
            retry_for: Seconds for which a request is repeated, with back-off, while the server is unavailable. Retries
                stop at the timeout of the request. 0 turns retries off.

        Raises:
            ValueError: The address is invalid, a number is too small, the element type is unknown, `tls` and
                `credentials` are both given, the files of `tls` cannot be used, or the metadata cannot be sent.
        """
        if batch_size < 1 or in_flight < 1:
            raise ValueError(f"batch_size and in_flight must be at least 1, not {batch_size} and {in_flight}")
        if element_type not in ELEMENT_TYPES:
            raise ValueError(f"element_type must be one of {', '.join(ELEMENT_TYPES)}, not {element_type!r}")
        if not retry_for >= 0:
            raise ValueError(f"retry_for must be at least 0 seconds, not {retry_for}")
        if tls is not None and credentials is not None:
            raise ValueError("give either tls or credentials")
        self.address = checked_address(address)
        self._has_credentials = credentials is not None
        self._options: dict[str, Any] = {
            "tls": tls,
            "token": token,
            "metadata": None if metadata is None else dict(metadata),
            "batch_size": batch_size,
            "in_flight": in_flight,
            "element_type": element_type,
            "retry_for": retry_for,
        }
        credentials = credentials if tls is None else tls.credentials()
        self._connection = self._connect(address, credentials, call_metadata(metadata, token), retry_for)
        self._core = Core(self._connection, batch_size, in_flight, element_type)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[()]]:
        """Pickle the address and options, including the token and the names of the files in `tls`, not their content.

        The copy opens its own connection.

        Raises:
            TypeError: The client has `credentials`, which cannot be pickled.
        """
        if self._has_credentials:
            raise TypeError("a client with credentials cannot be pickled; give it tls, or make one where it is needed")
        return partial(type(self), self.address, **self._options), ()

    @abstractmethod
    def close(self) -> Any:
        """Close the connection and cancel the calls in flight."""

    @abstractmethod
    def encode(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[VectorOptions]
    ) -> Any:
        """Encode sequences as one vector each.

        Args:
            sequences: Strings, or bytes in UTF-8. A single sequence is accepted too.
            encoder: Name of the encoder. "" selects the only encoder of a server that serves exactly one.
            version: Version of the encoder. None selects the highest.
            **options: Any of these:

                - timeout: Seconds for the whole input. None, the default, sets no limit.
                - truncate: Truncate sequences longer than the encoder's `max_length` instead of failing them. False by
                  default.
                - normalize: Scale each vector to length 1, so that a dot product is a cosine. A vector of zeros is left
                  as it is. False by default.
                - priority: "high", "normal" or "low". "high" is served before your other requests. "low" is served
                  after them and after the requests of others, but does not wait forever. "normal" by default.
                - on_error: What to do if sequences cannot be encoded: "raise", the default, raises one SequenceError
                  that lists them all; "nan" fills their rows with NaN.

        Returns:
            float32 [n, dimension], aligned with `sequences`. For a single sequence, float32 [dimension].

        Raises:
            SequenceError: Some sequences cannot be encoded, and `on_error` is "raise".
            EncodeError: The call failed. The subclass tells why.
            TypeError: A sequence is neither str nor bytes, or `sequences` does not iterate over its rows (for example
                a dict or a DataFrame).
        """

    @abstractmethod
    def encode_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[TokenOptions]
    ) -> Any:
        """Encode sequences as one vector per token.

        It raises the same errors as `encode`.

        Args:
            sequences: As in `encode`.
            encoder: As in `encode`.
            version: As in `encode`.
            **options: As in `encode`, except that `on_error` is "raise" or "empty". With "empty", a failed sequence has
                no rows.

        Returns:
            For each sequence, float32 [length, token_dimension]: the forward and backward outputs, concatenated. For a
                single sequence, one such array instead of a list. The arrays may be read-only views of the replies:
                copy an array before you write to it.
        """

    @abstractmethod
    def encode_features(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[VectorOptions]
    ) -> Any:
        """Encode sequences of float features as one vector each.

        It is for encoders that were exported without an embedding. It also raises the errors of `encode`.

        Args:
            features: Arrays [length, F], where F is the encoder's `features`. They are sent as float32. A single array
                is accepted too.
            encoder: Name of the encoder.
            version: As in `encode`.
            **options: As in `encode`.

        Returns:
            float32 [n, dimension], aligned with `features`. For a single array, float32 [dimension].

        Raises:
            TypeError: A sequence is not a matrix, or its width differs from the others.
        """

    @abstractmethod
    def encode_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[TokenOptions]
    ) -> Any:
        """Encode sequences of float features as one vector per step.

        It raises the same errors as `encode_features`.

        Args:
            features: As in `encode_features`.
            encoder: Name of the encoder.
            version: As in `encode`.
            **options: As in `encode_tokens`.

        Returns:
            For each sequence, float32 [length, token_dimension], as in `encode_tokens`.
        """

    @abstractmethod
    def call(self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]) -> Any:
        """Encode sequences and return everything that the server says about them.

        This includes the errors and notices of single sequences, lengths, version, engines and timings.

        Args:
            sequences: As in `encode`.
            encoder: As in `encode`.
            version: As in `encode`.
            **options: As in `encode`, without `on_error`.

        Returns:
            `Encodings` of the whole input.

        Raises:
            EncodeError: The call failed. A sequence that cannot be encoded raises nothing: it is listed in
                `Encodings.errors`.
            TypeError: As in `encode`.
        """

    @abstractmethod
    def call_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode sequences as one vector per token and return everything that the server says about them.

        Arguments and errors are those of `call`.

        Returns:
            `TokenEncodings` of the whole input.
        """

    @abstractmethod
    def call_features(self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]) -> Any:
        """Encode sequences of float features and return everything that the server says about them.

        `features` is as in `encode_features`. The other arguments and the errors are those of `call`.

        Returns:
            `Encodings` of the whole input.
        """

    @abstractmethod
    def call_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode sequences of float features as one vector per step, and return everything that the server says.

        `features` is as in `encode_features`. The other arguments and the errors are those of `call`.

        Returns:
            `TokenEncodings` of the whole input.
        """

    @abstractmethod
    def stream(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode an input of any length in bounded memory.

        The client reads ahead by at most `in_flight` requests of `batch_size` sequences. If the server has
        EncodeStream, all requests share one gRPC stream and so go to one server, even if there are several. With an
        older server, each request is a separate call. If you stop early, the requests in flight are cancelled.

        Args:
            sequences: As in `encode`. `AsyncClient` also accepts an asynchronous iterable.
            encoder: As in `encode`.
            version: As in `encode`.
            **options: As in `encode`, without `on_error`. `timeout` applies to each request.

        Yields:
            `Encodings` of consecutive parts of the input, in order. The indices in `errors` and `notices` count from
                the first sequence of the part.

        Raises:
            VersionGoneError: The server stopped serving the version that encoded the first part.
            EncodeError: A request failed. A sequence that cannot be encoded raises nothing.
            TypeError: As in `encode`.
        """

    @abstractmethod
    def stream_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode an input of any length as one vector per token, in bounded memory.

        Arguments and errors are those of `stream`.

        Yields:
            `TokenEncodings` of consecutive parts of the input, in order.
        """

    @abstractmethod
    def stream_features(self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]) -> Any:
        """Encode any number of sequences of float features in bounded memory.

        `features` is as in `encode_features`. `AsyncClient` also accepts an asynchronous iterable. The other arguments
        and the errors are those of `stream`.

        Yields:
            `Encodings` of consecutive parts of the input, in order.
        """

    @abstractmethod
    def stream_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode any number of sequences of float features as one vector per step, in bounded memory.

        `features` is as in `encode_features`. `AsyncClient` also accepts an asynchronous iterable. The other arguments
        and the errors are those of `stream`.

        Yields:
            `TokenEncodings` of consecutive parts of the input, in order.
        """

    @abstractmethod
    def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> Any:
        """List the encoders on the server.

        Args:
            timeout: Seconds to wait for the list. None sets no limit.

        Returns:
            A list of `EncoderInfo`. For an encoder that cannot answer, `ready` is False.

        Raises:
            EncodeError: The call failed.
        """

    @abstractmethod
    def encoder(self, name: str = "smiles", version: Version = None, *, timeout: float | None = LIST_TIMEOUT) -> Any:
        """Describe the encoder that answers to a name and version.

        Args:
            name: Name of the encoder, or NAME@VERSION. "" selects the only encoder of a server that serves exactly one.
            version: Version or alias. None selects the highest version that is not a candidate.
            timeout: Seconds to wait for the answer. None sets no limit.

        Returns:
            Its `EncoderInfo`.

        Raises:
            UnknownEncoderError: No such encoder is ready.
            EncodeError: The call failed.
        """
