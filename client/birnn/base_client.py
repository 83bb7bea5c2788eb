"""What both clients have in common: their options, and what each method takes, means and raises."""

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

# Seconds in which a server says what it serves.
LIST_TIMEOUT = 10.0


class BaseClient(ABC):
    """The methods of `Client`, which are coroutines and asynchronous iterators in `AsyncClient`."""

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
        """A client of one server, or of several that serve the same.

        Args:
            address: HOST:PORT, or any gRPC target: dns:///host:port for all addresses of a name,
                ipv4:HOST:PORT,HOST:PORT for several servers, unix:/path.
            tls: How to use TLS: `Tls()`, or `Tls(ca="ca.pem")` for a server whose authority this system does not know.
                None for a connection in the clear.
            credentials: Other credentials of gRPC, in place of `tls`.
            token: A bearer token, sent with every call. Only TLS keeps it from others on the way.
            metadata: What else is sent with every call, by key.
            batch_size: Most sequences in one request for pooled encodings; an eighth of it for per-token ones.
            in_flight: Most requests under way at a time for one input.
            element_type: How the numbers of replies travel. "float16" takes half the bytes: each number is rounded to
                11 significant bits, and a sequence with one beyond 65,504 fails as OUT_OF_RANGE. "int8" takes a
                quarter: each number is rounded to a 127th of the largest of its vector. Results are float32 all the
                same.
            retry_for: Seconds for which a request is repeated, with back-off, while the server is unavailable; never
                beyond its timeout. 0 repeats nothing.

        Raises:
            ValueError: The address is none, a number is too small, there is no such element type, files of `tls` cannot
                be used, or metadata cannot be sent.
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
        """Address and options, a token too, and names of files; the copy has a connection of its own.

        Raises:
            TypeError: The client has credentials, which cannot be pickled.
        """
        if self._has_credentials:
            raise TypeError("a client with credentials cannot be pickled; give it tls, or make one where it is needed")
        return partial(type(self), self.address, **self._options), ()

    @abstractmethod
    def close(self) -> Any:
        """Close the connection; calls under way are cancelled."""

    @abstractmethod
    def encode(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[VectorOptions]
    ) -> Any:
        """Encode sequences, one vector each.

        Args:
            sequences: Strings, or bytes in UTF-8; or a single one.
            encoder: Name of the encoder; "" where exactly one is served.
            version: Its version; None for the highest.
            **options: Any of these:

                - timeout: Seconds for the whole input; None, the default, for no limit.
                - truncate: Cut sequences longer than the encoder's `max_length` instead of failing them; default False.
                - normalize: Scale each vector to length 1, so that a dot product is a cosine; default False. A vector
                  of zeros stays as it is.
                - priority: "high" is served before your other requests; "low" after them and those of others, but not
                  never; default "normal".
                - on_error: What becomes of a sequence that cannot be encoded: "raise", the default, a SequenceError
                  that names all of them, or fill its row with "nan".

        Returns:
            float32 [n, dimension], aligned with `sequences`; for a single one [dimension].

        Raises:
            SequenceError: Some sequences cannot be encoded, and `on_error` is "raise".
            EncodeError: The call failed; the subclass says how.
            TypeError: A sequence is neither str nor bytes, or `sequences` does not iterate its rows, as a dict or a
                DataFrame.
        """

    @abstractmethod
    def encode_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[TokenOptions]
    ) -> Any:
        """Encode sequences, one vector a token. Arguments and errors as in `encode`, but for `on_error`.

        Args:
            sequences: As in `encode`.
            encoder: As in `encode`.
            version: As in `encode`.
            **options: As in `encode`; with `on_error="empty"` a failed sequence has no rows.

        Returns:
            For each sequence float32 [length, token_dimension], forward and backward outputs concatenated; for a
            single sequence the array alone. The arrays may be read-only views of the replies: copy one to write to it.
        """

    @abstractmethod
    def encode_features(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[VectorOptions]
    ) -> Any:
        """Encode sequences of float features, one vector each. Other arguments and errors as in `encode`.

        Args:
            features: Arrays [length, F], F being the encoder's `features`; sent as float32. Or a single one.
            encoder: Name of the encoder.
            version: As in `encode`.
            **options: As in `encode`.

        Returns:
            float32 [n, dimension], aligned with `features`; for a single array [dimension].

        Raises:
            TypeError: A sequence is no matrix, or has another width than the others.
        """

    @abstractmethod
    def encode_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[TokenOptions]
    ) -> Any:
        """Encode sequences of float features, one vector a step; see `encode_features` and `encode_tokens`."""

    @abstractmethod
    def call(self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]) -> Any:
        """As `encode`, with all that the server says: errors and notices by sequence, lengths, version, timings.

        Returns:
            `Encodings`.

        Raises:
            EncodeError: The call failed. Sequences that cannot be encoded raise nothing: see `Encodings.errors`.
        """

    @abstractmethod
    def call_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """As `encode_tokens`, with all that the server says, as `TokenEncodings`; see `call`."""

    @abstractmethod
    def call_features(self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]) -> Any:
        """As `encode_features`, with all that the server says, as `Encodings`; see `call`."""

    @abstractmethod
    def call_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """As `encode_feature_tokens`, with all that the server says, as `TokenEncodings`; see `call`."""

    @abstractmethod
    def stream(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """Encode an input of any length in bounded memory.

        The input is read no further ahead than `in_flight` requests of `batch_size` sequences. They share one stream of
        gRPC where the server has EncodeStream, and so one server where there are several; with an older one each is a
        call of its own. Stopping early cancels what is under way.

        Args:
            sequences: As in `encode`; `AsyncClient` also takes an asynchronous iterable.
            encoder: As in `encode`.
            version: As in `encode`.
            **options: As in `encode`, without `on_error`; `timeout` is for each request.

        Yields:
            `Encodings` of consecutive parts of the input, in order; `errors` and `notices` of a part count from its
            own first sequence.

        Raises:
            EncodeError: A request failed. Sequences that cannot be encoded raise nothing.
        """

    @abstractmethod
    def stream_tokens(
        self, sequences: Any, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """As `stream`, one vector a token: yields `TokenEncodings`."""

    @abstractmethod
    def stream_features(self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]) -> Any:
        """As `stream`, of sequences of float features; see `encode_features`."""

    @abstractmethod
    def stream_feature_tokens(
        self, features: Any, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Any:
        """As `stream`, of sequences of float features, one vector a step: yields `TokenEncodings`."""

    @abstractmethod
    def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> Any:
        """What the server serves, as a list of `EncoderInfo`; one that cannot answer is listed with `ready` false.

        Raises:
            EncodeError: The call failed.
        """

    @abstractmethod
    def encoder(self, name: str = "smiles", version: Version = None, *, timeout: float | None = LIST_TIMEOUT) -> Any:
        """The `EncoderInfo` of the encoder that answers to this name and version.

        Raises:
            UnknownEncoderError: There is none.
            EncodeError: The call failed.
        """
