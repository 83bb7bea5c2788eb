"""Matches requests and responses of one EncodeStream call. It does no I/O, and both clients use it."""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ClassVar, TypeAlias

import grpc

from birnn.errors import FailedRequest, InconsistentReplyError
from birnn.v1 import encoder_pb2 as pb

# The outcome of a request: a response or an error.
Outcome: TypeAlias = pb.EncodeResponse | Exception

# In seconds. A timeout of 0 would mean no timeout.
LEAST_TIMEOUT = 0.001


class StreamedRequest(ABC):
    """A request in flight on a stream.

    Args:
        number: Number that identifies the response.
        request: The request.
        timeout: Seconds from now within which it must be answered. None for no limit.
    """

    def __init__(self, number: int, request: pb.EncodeRequest, timeout: float | None) -> None:
        self.number = number
        self._request = request
        self._deadline = None if timeout is None else time.monotonic() + timeout

    @abstractmethod
    def settle(self, outcome: Outcome) -> None:
        """Pass the outcome to the caller that waits for it."""

    def cancel(self) -> bool:
        """Return False: a single request cannot be cancelled, only its stream."""
        return False

    def message(self) -> pb.EncodeStreamRequest:
        """Return the message to send now."""
        left = self._left()
        timeout = 0.0 if left is None else max(left, LEAST_TIMEOUT)
        return pb.EncodeStreamRequest(id=self.number, timeout=timeout, encode=self._request)

    def _left(self) -> float | None:
        """Return the seconds left until the deadline. None for no limit."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    @staticmethod
    def _late() -> FailedRequest:
        # If the server and the connection are alive, the server reports this as well.
        return FailedRequest(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    @staticmethod
    def _response(outcome: Outcome) -> pb.EncodeResponse:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class RequestStream:
    """Numbers requests and passes each response to its request.

    One thread may send requests while another one receives responses. A subclass starts the call and reads from it.

    Args:
        unsent: Queue of requests that gRPC sends as fast as the server reads them, with None after the last. It is
            never longer than the number of requests in flight, which bounds its memory.
    """

    # The class of requests that a caller can wait for.
    _streamed: ClassVar[type[StreamedRequest]]
    # gRPC's object for the EncodeStream call.
    _call: Any

    def __init__(self, unsent: SimpleQueue[Any] | asyncio.Queue[Any]) -> None:
        self._unsent = unsent
        self._numbers = itertools.count(1)
        self._waiting: dict[int, StreamedRequest] = {}
        self._error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether the stream has ended."""
        return self._error is not None

    def send(self, request: pb.EncodeRequest, timeout: float | None) -> StreamedRequest:
        """Send a request that must be answered within `timeout` seconds from now. None for no limit."""
        streamed = self._streamed(next(self._numbers), request, timeout)
        self._waiting[streamed.number] = streamed
        self._unsent.put_nowait(streamed)
        # This check comes last. Whichever comes later, the request or the end of the stream, settles the request.
        if self._error is not None:
            self._end(self._error)
        return streamed

    def close(self) -> None:
        """Send no more requests and cancel those in flight."""
        if self._waiting:
            self._call.cancel()
        self._unsent.put_nowait(None)

    def _answer(self, response: pb.EncodeStreamResponse) -> None:
        """Pass a response to its request.

        Raises:
            FailedRequest: The server could not read a message, so the failure belongs to no single request.
            InconsistentReplyError: No request in flight has the number of the response.
        """
        failure = FailedRequest.of(response.failure) if response.HasField("failure") else None
        request = self._waiting.pop(response.id, None)
        if request is not None:
            request.settle(failure or response.response)
        elif failure is not None:
            raise failure
        else:
            raise InconsistentReplyError(f"the server answered request {response.id}, which is not under way")

    def _end(self, error: Exception | None) -> None:
        """End all requests with `error`. None means that the server ended the stream without an error."""
        self._error = error or FailedRequest(grpc.StatusCode.UNAVAILABLE, "the stream ended before all was answered")
        with suppress(KeyError):
            while True:
                self._waiting.popitem()[1].settle(self._error)
        self._unsent.put_nowait(None)
