"""Messages between a front-end and the engine process: small, with a fixed layout, over a stream socket.

    byte    0      kind
            4..7   size of the body, uint32
            8..15  number of the request that the message is about, uint64; 0 where there is none
            16..   body

Numbers are in native byte order, as both processes are on the same machine. Requests and results travel through the
arena.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from birnn_service import errors
from birnn_service.engine.engine import Output
from birnn_service.observe.spans import SPAN_BYTES, SpanIds
from birnn_service.queueing.priority import Priority
from birnn_service.state import Address

HEADER = struct.Struct("=BxxxIQ")
_ENCODE = struct.Struct("=IQQdBQ24s")
_DONE = struct.Struct("=dd")
_FAILED = struct.Struct("=BBxxxxxxd")
# Size of a body. The largest one describes what is served, including the tokenizers' vocabularies.
MAX_BODY = 1 << 30

ERRORS: tuple[type[errors.ServiceError], ...] = (
    errors.InvalidRequestError,
    errors.UnknownEncoderError,
    errors.OverloadedError,
    errors.DeadlineError,
    errors.UnavailableError,
    errors.EngineError,
    errors.BrokenEncoderError,
    errors.LoadingError,
    errors.RateLimitedError,
    errors.ExpiredError,
    errors.DrainingError,
)
# Why calls are refused, by number.
_REASONS = tuple(errors.Reason)


class Encode(NamedTuple):
    """Front-end: encode the request in a block of the arena.

    `start` is where the block begins. `deadline` is a time of CLOCK_MONOTONIC, or infinite if there is none.
    `instance` is the number of the encoder's load. `span` is that of the call, if it is traced.
    """

    number: int
    sequences: int
    tokens: int
    start: int
    deadline: float
    priority: Priority
    instance: int
    output: Output
    span: SpanIds | None
    caller: str


class Cancel(NamedTuple):
    """Front-end: no caller waits for a request any more. It is still answered, and its block is in use until then."""

    number: int


class Done(NamedTuple):
    """Engine: the result is in the block. Also the seconds in the queue and of computing, and spans of its batches."""

    number: int
    queue: float
    compute: float
    batches: Sequence[SpanIds] = ()


class Failed(NamedTuple):
    """Engine: the request failed as a whole."""

    number: int
    error: errors.ServiceError


class Withdrawn(NamedTuple):
    """Engine: the request was cancelled, and its block is no longer used."""

    number: int


class Setup(NamedTuple):
    """Engine, the first message: what is served, and where to listen; JSON, see `birnn_service.frontends.setup`."""

    json: bytes


class Served(NamedTuple):
    """Engine: a version is served from now on, and replaces one of the same name and version; answered by `Followed`.

    The number is that of its instance; JSON, see `birnn_service.frontends.setup`.
    """

    number: int
    json: bytes


class Followed(NamedTuple):
    """Front-end: new calls now find an instance, or no longer find it, as the engine process ordered."""

    number: int


class Retired(NamedTuple):
    """Engine: an instance is no longer served; answered by `Followed`, and later by `Released`."""

    number: int


class Released(NamedTuple):
    """Front-end: the last call to an instance has ended. There will be no more requests for it."""

    number: int


class Listed(NamedTuple):
    """Engine: versions that are not served, aliases, and what readiness waits for; JSON, see `setup`."""

    json: bytes


class Order(NamedTuple):
    """Front-end: an operator orders a version to be loaded or unloaded; answered by `Carried`."""

    number: int
    action: str
    model: str


class Carried(NamedTuple):
    """Engine: an order has been carried out, or failed with an error."""

    number: int
    error: errors.ServiceError | None


class Scrape(NamedTuple):
    """Front-end: a caller wants the metrics of all processes; answered by `Scraped`."""

    number: int


class Scraped(NamedTuple):
    """Engine: the text of /metrics, packed by gzip; empty where it could not be collected."""

    number: int
    packed: bytes


class Listening(NamedTuple):
    """Front-end: it takes calls."""


class Refused(NamedTuple):
    """Front-end: it cannot take calls, and why."""

    reason: str


class Health(NamedTuple):
    """Engine: which encoders have failed their health checks, and why."""

    unhealthy: Mapping[Address, str]


class Obstacle(NamedTuple):
    """Front-end: what keeps it from being ready; empty if nothing does."""

    reason: str


class Counts(NamedTuple):
    """Front-end: what it has counted since the last one, JSON; see `counts`. It also shows that it is alive."""

    json: bytes


class Drain(NamedTuple):
    """Engine: refuse new calls, finish those under way, and end."""


Message = (
    Encode | Cancel | Done | Failed | Withdrawn | Setup | Listening | Refused | Health | Counts | Drain | Obstacle
    | Served | Followed | Retired | Released | Listed | Order | Carried | Scrape | Scraped
)  # fmt: skip
_NUMBERED = (
    Encode | Cancel | Done | Failed | Withdrawn | Served | Followed | Retired | Released | Order | Carried
    | Scrape | Scraped
)  # fmt: skip


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    kind, packed = _KINDS[type(message)]
    body = packed(message)
    number = message[0] if isinstance(message, _NUMBERED) else 0
    return HEADER.pack(kind, len(body), number) + body


class Decoder:
    """Splits the bytes from a socket into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with `data`.

        Raises:
            ValueError: The bytes are not valid messages.
        """
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._is_complete() else b""
        messages: list[Message] = []
        position = 0
        while len(data) - position >= HEADER.size:
            kind, size, number = HEADER.unpack_from(data, position)
            unpack = _UNPACK.get(kind)
            if unpack is None or size > MAX_BODY:
                raise ValueError(f"no message: kind {kind}, {size} bytes")
            end = position + HEADER.size + size
            if end > len(data):
                break
            try:
                messages.append(unpack(number, data[position + HEADER.size : end]))
            except (struct.error, IndexError, ValueError) as error:
                raise ValueError(f"no message of kind {kind}: {error}") from error
            position = end
        if data:
            self._rest = bytearray(memoryview(data)[position:])
        return messages

    def _is_complete(self) -> bool:
        """Whether the first message is complete. Asking first avoids copying a large one with every piece of it."""
        if len(self._rest) < HEADER.size:
            return False
        kind, size, _ = HEADER.unpack_from(self._rest)
        return kind not in _UNPACK or size > MAX_BODY or len(self._rest) >= HEADER.size + size


def _pack_encode(message: Encode) -> bytes:
    span = b"" if message.span is None else message.span.pack()
    return _ENCODE.pack(*message[1:7], span) + f"{message.output.value}\0{message.caller}".encode()


def _unpack_encode(number: int, body: bytes) -> Encode:
    sequences, tokens, start, deadline, priority, instance, packed = _ENCODE.unpack_from(body)
    output, caller = body[_ENCODE.size :].decode().split("\0")
    span = SpanIds.unpack(packed) if any(packed) else None
    return Encode(
        number, sequences, tokens, start, deadline, Priority(priority), instance, Output(output), span, caller
    )


def _pack_done(message: Done) -> bytes:
    return _DONE.pack(message.queue, message.compute) + b"".join(span.pack() for span in message.batches)


def _unpack_done(number: int, body: bytes) -> Done:
    batches = [SpanIds.unpack(body[start : start + SPAN_BYTES]) for start in range(_DONE.size, len(body), SPAN_BYTES)]
    queue, compute = _DONE.unpack_from(body)
    return Done(number, queue, compute, batches)


def _pack_health(message: Health) -> bytes:
    return json.dumps([[*address, reason] for address, reason in message.unhealthy.items()]).encode()


def _unpack_health(number: int, body: bytes) -> Health:
    return Health({(name, version): reason for name, version, reason in json.loads(body)})


def _pack_error(error: errors.ServiceError) -> bytes:
    retry, reason = 0.0, 0
    if isinstance(error, errors.OverloadedError):
        retry, reason = error.retry_after, _REASONS.index(error.reason)
    # A waiting call must get an answer, whatever the error is.
    kind = type(error) if type(error) in ERRORS else errors.EngineError
    return _FAILED.pack(ERRORS.index(kind), reason, retry) + str(error).encode()


def _unpack_error(body: bytes) -> errors.ServiceError:
    code, reason, retry = _FAILED.unpack_from(body)
    kind, text = ERRORS[code], body[_FAILED.size :].decode()
    overloaded = issubclass(kind, errors.OverloadedError)
    error: errors.ServiceError = kind(text, retry, _REASONS[reason]) if overloaded else kind(text)
    return error


def _unpack_order(number: int, body: bytes) -> Order:
    # A caller chooses the model, so it may hold any character.
    action, _, model = body.decode().partition("\0")
    return Order(number, action, model)


def _nothing(message: Message) -> bytes:
    return b""


_KINDS: dict[type, tuple[int, Callable[..., bytes]]] = {
    Encode: (1, _pack_encode),
    Cancel: (2, _nothing),
    Done: (3, _pack_done),
    Failed: (4, lambda message: _pack_error(message.error)),
    Withdrawn: (5, _nothing),
    Setup: (6, lambda message: message.json),
    Listening: (7, _nothing),
    Refused: (8, lambda message: message.reason.encode()),
    Health: (9, _pack_health),
    Counts: (10, lambda message: message.json),
    Drain: (11, _nothing),
    Obstacle: (12, lambda message: message.reason.encode()),
    Served: (13, lambda message: message.json),
    Followed: (14, _nothing),
    Retired: (15, _nothing),
    Released: (16, _nothing),
    Listed: (17, lambda message: message.json),
    Order: (18, lambda message: f"{message.action}\0{message.model}".encode()),
    Carried: (19, lambda message: b"" if message.error is None else _pack_error(message.error)),
    Scrape: (20, _nothing),
    Scraped: (21, lambda message: message.packed),
}
_UNPACK: dict[int, Callable[[int, bytes], Message]] = {
    1: _unpack_encode,
    2: lambda number, body: Cancel(number),
    3: _unpack_done,
    4: lambda number, body: Failed(number, _unpack_error(body)),
    5: lambda number, body: Withdrawn(number),
    6: lambda number, body: Setup(body),
    7: lambda number, body: Listening(),
    8: lambda number, body: Refused(body.decode()),
    9: _unpack_health,
    10: lambda number, body: Counts(body),
    11: lambda number, body: Drain(),
    12: lambda number, body: Obstacle(body.decode()),
    13: lambda number, body: Served(number, body),
    14: lambda number, body: Followed(number),
    15: lambda number, body: Retired(number),
    16: lambda number, body: Released(number),
    17: lambda number, body: Listed(body),
    18: _unpack_order,
    19: lambda number, body: Carried(number, _unpack_error(body) if body else None),
    20: lambda number, body: Scrape(number),
    21: Scraped,
}


def to_wire(deadline: float | None) -> float:
    """A deadline as it is in messages."""
    return math.inf if deadline is None else deadline


def from_wire(deadline: float) -> float | None:
    """A deadline as it is elsewhere in the service."""
    return None if deadline == math.inf else deadline
