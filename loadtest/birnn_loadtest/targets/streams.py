"""Streams over the connections of a target."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import grpc.aio


class Stream(Protocol):
    """Requests under way over one call."""

    @property
    def over(self) -> bool:
        """Whether the call has ended."""

    def close(self) -> None:
        """Cancel the call."""


StreamT = TypeVar("StreamT", bound=Stream)


class Streams(Generic[StreamT]):
    """A stream for each connection, used in turn; one that has ended is opened again.

    Args:
        channels: The connections.
        opened: Opens a stream over a connection.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], opened: Callable[[grpc.aio.Channel], StreamT]) -> None:
        self._channels = channels
        self._opened = opened
        self._streams = [opened(channel) for channel in channels]
        self._number = 0

    def next(self) -> StreamT:
        """The stream whose turn it is."""
        number = self._number = (self._number + 1) % len(self._streams)
        if self._streams[number].over:
            self._streams[number] = self._opened(self._channels[number])
        return self._streams[number]

    def close(self) -> None:
        """Cancel all calls."""
        for stream in self._streams:
            stream.close()
