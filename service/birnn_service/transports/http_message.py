"""Requests and replies of HTTP, as the protocols over it see them."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birnn_bundle.quoting import shown
from birnn_service.errors import InvalidRequestError
from birnn_service.settings import Settings

TIMEOUT = "x-request-timeout"

# Told how many more bytes a request is about to take; may raise a ServiceError.
Grow = Callable[[int], None]


class HttpRequestError(InvalidRequestError):
    """A request that HTTP has a status of its own for: 408, 413, 415."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, eq=False)  # not frozen: that would take as long as to parse it
class HttpRequest:
    """A request whose body has not been read yet.

    Attributes:
        method: GET, POST and so on.
        path: With escapes resolved.
        headers: By name in lower case; those that came more than once are joined by commas.
        caller: Who calls; callers share the device fairly.
        certificate_name: Of the caller, by a certificate that was verified; empty for none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    caller: str
    _read: Callable[[Grow, str], Awaitable[bytes]]
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    certificate_name: str = ""

    async def read(self, grow: Grow = lambda size: None) -> bytes:
        """Receive the body, unpacked; once only.

        Args:
            grow: Asked before the request takes more memory.

        Raises:
            HttpRequestError: It is too large, too slow, or packed in an unknown way.
        """
        return await self._read(grow, self.caller)

    @property
    def timeout(self) -> float | None:
        """Seconds after which the caller gives up, by X-Request-Timeout; None for never.

        Raises:
            InvalidRequestError: The header is no positive number.
        """
        value = self.headers.get(TIMEOUT)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) or not float(value):
            raise InvalidRequestError(f"X-Request-Timeout must be a positive number of seconds, got {shown(value)}")
        return float(value)

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called once the caller has taken the reply, or is gone."""
        self._callbacks.append(ended)

    def end(self) -> None:
        """The exchange has ended."""
        while self._callbacks:
            self._callbacks.pop()()


@dataclass(frozen=True, slots=True, eq=False)
class HttpReply:
    """A reply.

    Attributes:
        status: Such as 200.
        body: In pieces, of bytes or of views of bytes; they are sent as they are.
        media_type: Of the body.
        headers: Others; the transport adds those of its own.
    """

    status: int
    body: Sequence[bytes | memoryview]
    media_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(len(piece) for piece in self.body)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What callers may do.

    Attributes:
        body_bytes: Largest body of a request, packed and unpacked.
        request_seconds: How long a body may take to arrive.
        reply_seconds: How long a caller may take to read a reply.
        head_seconds: How long a request's head may take to arrive.
        idle_seconds: How long a connection may wait for its next request. Proxies keep theirs for 60 s.
        connection_seconds: Age at which a connection is closed with its next reply.
        connections: Most connections. One caller has at most three quarters of them.
        head_bytes: Most bytes of a request's head.
        headers: Most headers of a request.
    """

    body_bytes: int
    request_seconds: float = 60.0
    reply_seconds: float = 60.0
    head_seconds: float = 10.0
    idle_seconds: int = 75
    connection_seconds: float = 600.0
    connections: int = 4096
    head_bytes: int = 16_384
    headers: int = 100


def limits_of(settings: Settings) -> HttpLimits:
    """The limits that the settings name."""
    return HttpLimits(
        body_bytes=settings.max_message_mib << 20,
        request_seconds=settings.max_request_seconds,
        reply_seconds=settings.max_reply_seconds,
        head_seconds=settings.max_head_seconds,
        idle_seconds=settings.max_idle_seconds,
        connection_seconds=settings.max_connection_seconds,
        connections=settings.max_connections,
    )


Answer = Callable[[HttpRequest], Awaitable[HttpReply]]
Scope = dict[str, Any]
