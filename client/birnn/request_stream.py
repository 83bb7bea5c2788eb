"""The requests under way over one call of EncodeStream, without any I/O: the same for both clients."""

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

# What a request comes to.
Outcome: TypeAlias = pb.EncodeResponse | Exception

# Seconds. A timeout of 0 would mean none.
LEAST_TIMEOUT = 0.001


class StreamedRequest(ABC):
    """A request under way on a stream.

    Args:
        number: By which its response is known.
        request: What is asked for.
        timeout: Seconds from now in which it must be answered; None for no limit.
    """

    def __init__(self, number: int, request: pb.EncodeRequest, timeout: float | None) -> None:
        self.number = number
        self._request = request
        self._deadline = None if timeout is None else time.monotonic() + timeout

    @abstractmethod
    def settle(self, outcome: Outcome) -> None:
        """Take the outcome, for the caller that waits for it."""

    def cancel(self) -> bool:
        """Whether it was cancelled, which only its stream can be."""
        return False

    def message(self) -> pb.EncodeStreamRequest:
        """What to send now."""
        left = self._left()
        timeout = 0.0 if left is None else max(left, LEAST_TIMEOUT)
        return pb.EncodeStreamRequest(id=self.number, timeout=timeout, encode=self._request)

    def _left(self) -> float | None:
        """Seconds in which it must be answered; None for no limit."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    @staticmethod
    def _late() -> FailedRequest:
        # The server says so as well, where it and the connection are alive.
        return FailedRequest(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    @staticmethod
    def _response(outcome: Outcome) -> pb.EncodeResponse:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class RequestStream:
    """Numbers requests, and gives responses to the requests they answer.

    Requests may be sent by one thread while another one takes responses. A subclass begins the call, and reads it.

    Args:
        unsent: Requests for gRPC to send as fast as the server reads them, and None after the last. It gets no longer
            than there are requests under way, which is what bounds its memory.
    """

    # What a request becomes, so that it can be waited for.
    _streamed: ClassVar[type[StreamedRequest]]
    # The call of EncodeStream, as gRPC gives it.
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
        """Send a request, to be answered within `timeout` seconds from now; None for no limit."""
        streamed = self._streamed(next(self._numbers), request, timeout)
        self._waiting[streamed.number] = streamed
        self._unsent.put_nowait(streamed)
        # Looked at last: whichever comes later, a request or the end, settles the request.
        if self._error is not None:
            self._end(self._error)
        return streamed

    def close(self) -> None:
        """Send no more; requests under way are cancelled."""
        if self._waiting:
            self._call.cancel()
        self._unsent.put_nowait(None)

    def _answer(self, response: pb.EncodeStreamResponse) -> None:
        """Give a response to its request.

        Raises:
            FailedRequest: It tells of a message that the server could not read, and so of no request in particular.
            InconsistentReplyError: There is no such request.
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
        """End all requests with `error`; None where the server has ended the stream as if all was well."""
        self._error = error or FailedRequest(grpc.StatusCode.UNAVAILABLE, "the stream ended before all was answered")
        with suppress(KeyError):
            while True:
                self._waiting.popitem()[1].settle(self._error)
        self._unsent.put_nowait(None)
