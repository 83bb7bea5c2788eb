"""An encoder on a server, for libraries that pass texts and expect lists of floats."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from birnn.async_client import AsyncClient
from birnn.client import Client


class ServedEncoder:
    """An encoder on a server, with the options to call it.

    It can be pickled, and several threads and event loops can use it.

    Args:
        address: Address of the server. See `Client`.
        client: More options of `Client`.
        call: Options of `Client.encode`.
    """

    def __init__(self, address: str, client: Mapping[str, Any], call: Mapping[str, Any]) -> None:
        self._arguments = (address, dict(client), dict(call))
        self._client = Client(address, **client)
        # Event loops that run at the same time run in different threads, and an AsyncClient works in one at a time.
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type["ServedEncoder"], tuple[str, dict[str, Any], dict[str, Any]]]:
        return type(self), self._arguments

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vectors of texts, in order. Raises the errors of `Client.encode`."""
        _, _, call = self._arguments
        vectors: list[list[float]] = self._client.encode(list(texts), **call).tolist()
        return vectors

    async def encode_async(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vectors of texts from asyncio code. See `encode`."""
        address, options, call = self._arguments
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = AsyncClient(address, **options)
        client: AsyncClient = self._of_thread.client
        vectors: list[list[float]] = (await client.encode(list(texts), **call)).tolist()
        return vectors
