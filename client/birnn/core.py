"""The logic that both clients share: it turns an input into requests and the replies into results. It does no I/O."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from birnn.assembly import Assembly
from birnn.connection import Connection
from birnn.encode_call import EncodeCall, Output
from birnn.encoder_listing import encoder_info, find_encoder
from birnn.encodings import EncoderInfo
from birnn.errors import VersionGoneError
from birnn.flow import Flow
from birnn.inputs import checked_timeout, is_single, rows
from birnn.options import ElementType, Options, Version

# How often one input is encoded again because its version is gone.
VERSION_CHANGES = 3


class Core:
    """Encodes over a connection. `BaseClient` documents the arguments and errors of the methods.

    Args:
        connection: Connection to the server.
        batch_size: Maximum number of sequences in a request.
        in_flight: Maximum number of requests in flight for one input.
        element_type: Type of the numbers in replies.
    """

    def __init__(self, connection: Connection, batch_size: int, in_flight: int, element_type: ElementType) -> None:
        self._connection = connection
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._element_type: ElementType = element_type

    async def vectors(
        self,
        kind: type[EncodeCall],
        sequences: Any,
        encoder: str,
        version: Version,
        *,
        on_error: Literal["raise", "nan"] = "raise",
        **options: Unpack[Options],
    ) -> NDArray[np.float32]:
        """Return one vector per sequence."""
        answer = await self.answer(kind, "pooled", sequences, encoder, version, **options)
        vectors = answer.checked(on_error).encodings().vectors
        return vectors[0] if is_single(sequences) else vectors

    async def token_vectors(
        self,
        kind: type[EncodeCall],
        sequences: Any,
        encoder: str,
        version: Version,
        *,
        on_error: Literal["raise", "empty"] = "raise",
        **options: Unpack[Options],
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        """Return one vector per token or step."""
        answer = await self.answer(kind, "tokens", sequences, encoder, version, **options)
        tokens = answer.checked(on_error).token_encodings().tokens
        return tokens[0] if is_single(sequences) else tokens

    async def answer(
        self,
        kind: type[EncodeCall],
        output: Output,
        sequences: Any,
        encoder: str,
        version: Version,
        **options: Unpack[Options],
    ) -> Assembly:
        """Return everything that the server says about an input, from one version of the encoder.

        If the server stops serving that version, the input is encoded again with the version that answers then.
        """
        items = list(rows(sequences))
        call = self._call(kind, output, encoder, version, **options)
        if not items:
            return Assembly.of_nothing(await self.encoder(encoder, version, call.timeout))
        for _ in range(VERSION_CHANGES):
            try:
                return await self._whole(call, items)
            except VersionGoneError:
                call.restart()
        return await self._whole(call, items)

    async def _whole(self, call: EncodeCall, items: list[Any]) -> Assembly:
        assembly = Assembly(len(items))
        add = assembly.add_tokens if call.output == "tokens" else assembly.add_vectors
        with closing(Flow(self._connection, call, iter(items), self._in_flight, streamed=False)) as flow:
            while (chunk := await flow.next()) is not None:
                add(chunk)
        return assembly

    def flow(
        self,
        kind: type[EncodeCall],
        output: Output,
        sequences: Iterator[Any] | AsyncIterator[Any],
        encoder: str,
        version: Version,
        **options: Unpack[Options],
    ) -> Flow:
        """Encode an input part by part. The timeout applies to each request."""
        call = self._call(kind, output, encoder, version, each=True, **options)
        return Flow(self._connection, call, sequences, self._in_flight, streamed=True)

    async def encoders(self, timeout: float | None) -> list[EncoderInfo]:
        """List the encoders on the server."""
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> Any:
            return self._connection.list_encoders(None if deadline is None else deadline - time.monotonic())

        reply = await self._connection.answer(send(), send, deadline, timeout)
        return [encoder_info(encoder) for encoder in reply.encoders]

    async def encoder(self, name: str, version: Version, timeout: float | None) -> EncoderInfo:
        """Return the encoder that answers to a name and version."""
        return find_encoder(await self.encoders(timeout), name, version, self._connection.address)

    def _call(
        self, kind: type[EncodeCall], output: Output, encoder: str, version: Version, **options: Any
    ) -> EncodeCall:
        return kind(output, encoder, version, batch_size=self._batch_size, element_type=self._element_type, **options)
