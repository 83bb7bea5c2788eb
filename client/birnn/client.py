"""The client for synchronous code. `BaseClient` documents the methods."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from birnn.assembly import encodings, token_encodings
from birnn.base_client import LIST_TIMEOUT, BaseClient
from birnn.blocking_connection import BlockingConnection, now
from birnn.chunk import Chunk
from birnn.encode_call import EncodeCall, FeatureCall
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.flow import Flow
from birnn.inputs import FeatureArrays, Features, Item, Strings, rows
from birnn.options import Options, TokenOptions, VectorOptions, Version

T = TypeVar("T")


class Client(BaseClient):
    """Encodes sequences with a birnn server.

    The client is thread-safe. It connects on first use. It splits a large input into requests of `batch_size`
    sequences, keeps several requests in flight, and returns the results in order. It repeats a request while the server
    is unavailable, for example during a restart (see `retry_for`), and up to four times if the server is overloaded.
    """

    _connect = BlockingConnection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        now(self._connection.close())

    def encode(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[VectorOptions]
    ) -> NDArray[np.float32]:
        return now(self._core.vectors(EncodeCall, sequences, encoder, version, **options))

    @overload
    def encode_tokens(  # type: ignore[overload-overlap]
        self, sequences: Item, encoder: str = ..., version: Version = ..., **options: Unpack[TokenOptions]
    ) -> NDArray[np.float32]: ...

    @overload
    def encode_tokens(
        self, sequences: Iterable[Item], encoder: str = ..., version: Version = ..., **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]]: ...

    def encode_tokens(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        return now(self._core.token_vectors(EncodeCall, sequences, encoder, version, **options))

    def call(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Encodings:
        return now(self._core.answer(EncodeCall, "pooled", sequences, encoder, version, **options)).encodings()

    def call_tokens(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> TokenEncodings:
        return now(self._core.answer(EncodeCall, "tokens", sequences, encoder, version, **options)).token_encodings()

    def stream(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Generator[Encodings, None, None]:
        flow = self._core.flow(EncodeCall, "pooled", rows(sequences), encoder, version, **options)
        return _parts(flow, encodings)

    def stream_tokens(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Generator[TokenEncodings, None, None]:
        flow = self._core.flow(EncodeCall, "tokens", rows(sequences), encoder, version, **options)
        return _parts(flow, token_encodings)

    def encode_features(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[VectorOptions]
    ) -> NDArray[np.float32]:
        return now(self._core.vectors(FeatureCall, features, encoder, version, **options))

    @overload
    def encode_feature_tokens(  # type: ignore[overload-overlap]
        self, features: Features, encoder: str, version: Version = ..., **options: Unpack[TokenOptions]
    ) -> NDArray[np.float32]: ...

    @overload
    def encode_feature_tokens(
        self, features: Iterable[Features], encoder: str, version: Version = ..., **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]]: ...

    def encode_feature_tokens(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        return now(self._core.token_vectors(FeatureCall, features, encoder, version, **options))

    def call_features(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Encodings:
        return now(self._core.answer(FeatureCall, "pooled", features, encoder, version, **options)).encodings()

    def call_feature_tokens(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> TokenEncodings:
        return now(self._core.answer(FeatureCall, "tokens", features, encoder, version, **options)).token_encodings()

    def stream_features(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Generator[Encodings, None, None]:
        flow = self._core.flow(FeatureCall, "pooled", rows(features), encoder, version, **options)
        return _parts(flow, encodings)

    def stream_feature_tokens(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Generator[TokenEncodings, None, None]:
        flow = self._core.flow(FeatureCall, "tokens", rows(features), encoder, version, **options)
        return _parts(flow, token_encodings)

    def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        return now(self._core.encoders(timeout))

    def encoder(
        self, name: str = "smiles", version: Version = None, *, timeout: float | None = LIST_TIMEOUT
    ) -> EncoderInfo:
        return now(self._core.encoder(name, version, timeout))


def _parts(flow: Flow, result: Callable[[Chunk], T]) -> Generator[T, None, None]:
    with closing(flow):
        while (chunk := now(flow.next())) is not None:
            yield result(chunk)
