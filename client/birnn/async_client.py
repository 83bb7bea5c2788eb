"""The client for asyncio code. `BaseClient` documents the methods."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from birnn.assembly import encodings, token_encodings
from birnn.async_connection import AsyncConnection
from birnn.base_client import LIST_TIMEOUT, BaseClient
from birnn.chunk import Chunk
from birnn.encode_call import EncodeCall, FeatureCall
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.flow import Flow
from birnn.inputs import FeatureArrays, Features, Item, Strings, rows
from birnn.options import Options, TokenOptions, VectorOptions, Version

AnyStrings: TypeAlias = Strings | AsyncIterable[Item]
AnyFeatureArrays: TypeAlias = FeatureArrays | AsyncIterable[Features]
T = TypeVar("T")


class AsyncClient(BaseClient):
    """Encodes sequences with a birnn server from asyncio code. It has the same methods as `Client`.

    Use an instance in one event loop at a time. In a new event loop, for example in a second `asyncio.run`, it opens a
    new connection. Cancelling a coroutine cancels its calls.
    """

    _connect = AsyncConnection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    async def encode(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[VectorOptions]
    ) -> NDArray[np.float32]:
        return await self._core.vectors(EncodeCall, sequences, encoder, version, **options)

    @overload
    async def encode_tokens(  # type: ignore[overload-overlap]
        self, sequences: Item, encoder: str = ..., version: Version = ..., **options: Unpack[TokenOptions]
    ) -> NDArray[np.float32]: ...

    @overload
    async def encode_tokens(
        self, sequences: Iterable[Item], encoder: str = ..., version: Version = ..., **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]]: ...

    async def encode_tokens(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        return await self._core.token_vectors(EncodeCall, sequences, encoder, version, **options)

    async def call(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> Encodings:
        return (await self._core.answer(EncodeCall, "pooled", sequences, encoder, version, **options)).encodings()

    async def call_tokens(
        self, sequences: Strings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> TokenEncodings:
        return (await self._core.answer(EncodeCall, "tokens", sequences, encoder, version, **options)).token_encodings()

    def stream(
        self, sequences: AnyStrings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> AsyncGenerator[Encodings, None]:
        flow = self._core.flow(EncodeCall, "pooled", _rows(sequences), encoder, version, **options)
        return _parts(flow, encodings)

    def stream_tokens(
        self, sequences: AnyStrings, encoder: str = "smiles", version: Version = None, **options: Unpack[Options]
    ) -> AsyncGenerator[TokenEncodings, None]:
        flow = self._core.flow(EncodeCall, "tokens", _rows(sequences), encoder, version, **options)
        return _parts(flow, token_encodings)

    async def encode_features(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[VectorOptions]
    ) -> NDArray[np.float32]:
        return await self._core.vectors(FeatureCall, features, encoder, version, **options)

    @overload
    async def encode_feature_tokens(  # type: ignore[overload-overlap]
        self, features: Features, encoder: str, version: Version = ..., **options: Unpack[TokenOptions]
    ) -> NDArray[np.float32]: ...

    @overload
    async def encode_feature_tokens(
        self, features: Iterable[Features], encoder: str, version: Version = ..., **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]]: ...

    async def encode_feature_tokens(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[TokenOptions]
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        return await self._core.token_vectors(FeatureCall, features, encoder, version, **options)

    async def call_features(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> Encodings:
        return (await self._core.answer(FeatureCall, "pooled", features, encoder, version, **options)).encodings()

    async def call_feature_tokens(
        self, features: FeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> TokenEncodings:
        return (await self._core.answer(FeatureCall, "tokens", features, encoder, version, **options)).token_encodings()

    def stream_features(
        self, features: AnyFeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> AsyncGenerator[Encodings, None]:
        flow = self._core.flow(FeatureCall, "pooled", _rows(features), encoder, version, **options)
        return _parts(flow, encodings)

    def stream_feature_tokens(
        self, features: AnyFeatureArrays, encoder: str, version: Version = None, **options: Unpack[Options]
    ) -> AsyncGenerator[TokenEncodings, None]:
        flow = self._core.flow(FeatureCall, "tokens", _rows(features), encoder, version, **options)
        return _parts(flow, token_encodings)

    async def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        return await self._core.encoders(timeout)

    async def encoder(
        self, name: str = "smiles", version: Version = None, *, timeout: float | None = LIST_TIMEOUT
    ) -> EncoderInfo:
        return await self._core.encoder(name, version, timeout)


def _rows(sequences: Any) -> Iterator[Any] | AsyncIterator[Any]:
    return aiter(sequences) if isinstance(sequences, AsyncIterable) else rows(sequences)


async def _parts(flow: Flow, result: Callable[[Chunk], T]) -> AsyncGenerator[T, None]:
    with closing(flow):
        while (chunk := await flow.next()) is not None:
            yield result(chunk)
