"""One call, as protocols see it, and what a transport must offer for it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

from birnn_bundle.record import record
from birnn_service.catalog import Encoder
from birnn_service.errors import ServiceError
from birnn_service.memory_budget import Hold
from birnn_service.observe.metrics import EncoderMetrics
from birnn_service.observe.notes import Notes
from birnn_service.token_file import Right, Rights


class Arrived(Protocol):
    """A call that has arrived at a transport."""

    caller: str
    """Who calls; callers share the device fairly. An address, until the endpoint knows a name."""

    @property
    def deadline(self) -> float | None:
        """When the caller gives up, on `time.monotonic`; None where it never does."""

    @property
    def request_id(self) -> str:
        """By which the caller wants to find the call in the log; empty for none."""

    @property
    def certificate_name(self) -> str:
        """The name in the caller's certificate, by a certificate that was verified; empty for none."""

    @property
    def traceparent(self) -> str:
        """The header `traceparent`, as it came; empty for none."""

    @property
    def path(self) -> str:
        """The path of its URL over HTTP; empty over gRPC."""

    def header(self, name: str) -> str:
        """A header or metadata by its name in lower case; joined by commas where it came more than once."""

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called once the call is over: its reply has been sent, or its caller has gone."""


class Incoming(Arrived, Protocol):
    """A call of one request, which has not been read yet."""

    async def read(self, grow: Callable[[int], None]) -> Sized:
        """Receive the request, as the protocol's `parse` expects it.

        Args:
            grow: Told of bytes before they are taken in, where they come piece by piece; refuses what is too much.

        Raises:
            ServiceError: It does not come, or cannot be taken.
        """


class Stream(Arrived, Protocol):
    """A call that holds many requests."""

    async def next(self, grow: Callable[[int], None]) -> bytes | None:
        """Receive the next request; None once there are no more.

        Args:
            grow: See `Incoming.read`.

        Raises:
            ServiceError: It cannot be taken.
        """

    async def write(self, reply: bytes) -> None:
        """Send a reply; returns once the next one may be sent."""


@record
class Spent:
    """Where the time of a call to an encoder went, in seconds, and for how many sequences.

    Attributes:
        sequences: Those that were encoded.
        tokenize, queue, compute: See `birnn_service.pipeline.Encoded`.
        until: From the call's arrival to its encodings; what comes then is making the reply.
    """

    sequences: int
    tokenize: float
    queue: float
    compute: float
    until: float


@dataclass(slots=True, eq=False)
class Call:
    """A call under way.

    Attributes:
        caller: Who calls.
        deadline: When the caller gives up, on `time.monotonic`; None where it never does.
        memory: What it holds of the memory budget until its reply has been sent.
        encoder: Which encoder it is for, once that is known.
        metrics: Where that encoder's calls are counted.
        spent: Where its time went, once its sequences have been encoded.
        notes: What is noted of it on its way; None for a call that is neither traced nor logged.
        started: When it arrived, on `time.perf_counter`.
    """

    caller: str
    deadline: float | None
    memory: Hold
    encoder: Encoder | None = None
    metrics: EncoderMetrics | None = None
    spent: Spent | None = None
    notes: Notes | None = None
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time since its arrival."""
        return time.perf_counter() - self.started


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method of a protocol, as it is registered with the endpoint.

    Attributes:
        name: Of the method, in metrics and messages.
        parse: Turns what a transport has read into a request, or is a coroutine function that does; raises
            InvalidRequestError.
        answer: Answers a request, in what the transport sends: bytes over gRPC; raises ServiceError.
        encoder: Name and version of the encoder that a request is for; None where calls are about none. Such calls
            take little memory and time, and are answered whatever the server is doing.
        right: What a caller's token must be good for, where there are tokens; of several rights, one is enough. None
            for no token at all.
    """

    name: str
    parse: Callable[[Any], Any]
    answer: Callable[[Any, Call], Awaitable[Any]]
    encoder: Callable[[Any], tuple[str, str]] | None = None
    right: Rights | None = Right.ENCODE


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """A method that answers one request with replies until its caller goes or the server closes.

    Attributes:
        name, parse, right: See `Method`.
        replies: All replies to a request, in the bytes of the protocol.
    """

    name: str
    parse: Callable[[Any], Any]
    replies: Callable[[Any], AsyncIterator[bytes]]
    right: Rights | None = Right.ENCODE


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """A method whose calls hold many requests; each of them is answered, and fails, by itself.

    Attributes:
        name: See `Method`.
        parse: Turns a message into the id of a request, and the request; None instead of a request cancels the one of
            that id. Raises InvalidRequestError.
        method: Answers a request with the reply that the stream sends. A stream as a whole needs the same right.
        failed: Turns the id of a request, and the error with which it failed, into a reply.
        ordered: Whether replies come in the order of their requests. If not, they come as they are ready, and no two
            requests under way may have the same id.
    """

    name: str
    parse: Callable[[bytes], tuple[Any, Any]]
    method: Method
    failed: Callable[[Any, ServiceError], bytes]
    ordered: bool = False
