"""What every target has in common."""

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from birnn import EncodeError
from birnn.async_connection import open_channel
from birnn.cli.server_options import Server
from birnn_loadtest.schedule import Part

GRPC_CONNECTIONS = 4


class CallError(Exception):
    """A call failed.

    Attributes:
        code: What the protocol calls the failure: DEADLINE_EXCEEDED, or HTTP_429.
        message: What is known of it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """A failure that gRPC tells."""
        return cls(error.code().name, error.details() or "no details")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answered call.

    Attributes:
        item_errors: How many of its sequences the server could not encode.
        vectors: Reads its vectors: float32 [sequences, dimension]; raises ValueError where they cannot be read.
    """

    item_errors: int
    vectors: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TensorNames:
    """Names of the tensors of Open Inference; None for what the model's metadata say."""

    input: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """An encoder as the server describes it.

    Attributes:
        encoder: Its name.
        version: Its version; "" where the server does not say.
        text: What else is known, in words.
    """

    encoder: str
    version: str
    text: str


class Target(ABC):
    """A server that is tested, connected to from one event loop."""

    @abstractmethod
    async def open(self, parts: Sequence[Part]) -> list[Served]:
        """Connect, and find the encoders; describes each.

        Raises:
            EncodeError: The server is not reachable, or does not serve them.
        """

    @abstractmethod
    async def close(self) -> None:
        """End all connections."""

    @abstractmethod
    async def server(self) -> str | None:
        """Name and version of the server; None where it does not say."""

    @abstractmethod
    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        """Encode sequences.

        Raises:
            CallError: The call failed.
        """


class GrpcTarget(Target):
    """A target behind several connections of gRPC, used in turn."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        self._server = server
        self._count = connections or GRPC_CONNECTIONS
        self._timeout = timeout
        self._names = names
        self._channels: list[grpc.aio.Channel] = []

    async def _connect(self) -> None:
        # Every connection of its own: channels share them otherwise.
        self._channels = [
            open_channel(self._server.address, self._server.credentials, shared=False) for _ in range(self._count)
        ]
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        except TimeoutError as error:
            raise EncodeError(
                f"{self._server.address} did not accept {self._count} connections within {self._timeout:g} s; "
                "lower --connections, or raise --timeout"
            ) from error

    async def close(self) -> None:
        """End all connections; calls under way are cancelled."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _in_turn(self, of: Callable[[grpc.aio.Channel], Any]) -> "itertools.cycle[Any]":
        return itertools.cycle([of(channel) for channel in self._channels])
