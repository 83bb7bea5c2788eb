"""An HTTP connection of uvicorn, with limits on everything that a caller can do.

uvicorn has no limits on heads, on requests sent ahead, or on time. Its protocol class is a set of callbacks for
httptools' parser, and the class here counts in the same callbacks. A deadline is an attribute, and one periodic sweep
compares all of them, because timers would cost each request more than everything else here.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from birnn_service.transports.caller import caller_of
from birnn_service.transports.certificate_name import name_in
from birnn_service.transports.http_connections import Connections
from birnn_service.transports.http_handshake import peer_of
from birnn_service.transports.http_message import Scope

logger = logging.getLogger(__name__)

# Requests that may wait on a connection while an earlier one is answered.
MOST_AHEAD = 8
# How long the rest of a refused request is received and dropped. Closing at once could lose the reply.
LINGER_SECONDS = 2.0
# A body whose pieces are smaller than this on average is refused, because each piece costs as much as a KiB. The first
# pieces are not counted.
LEAST_PIECE, FREE_PIECES = 64, 1024
# Chunks may have as many bytes of overhead (sizes, extensions, trailers) as the body has, and this many more.
FREE_BYTES = 1 << 20

Serve = Callable[["Connection", Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Phase(Enum):
    """What a connection waits for, until its deadline."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    CALL = "call"
    REPLY = "reply"
    CLOSE = "close"


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        connections: Connections,
        serve: Serve,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._limits = connections.limits
        self.app = partial(serve, self)
        self.peer = self.caller = ""
        self.until = math.inf
        self.lost = False
        self.call: asyncio.Task[Any] | None = None
        """What is cancelled if the caller leaves."""
        self.fault: tuple[int, str] | None = None
        """Why the body that is being received will never be complete: a status and the reason."""
        self._reason = (400, "this is no valid HTTP request")
        self._phase = Phase.HEAD
        self._deaf = False
        self._opened = 0.0
        self._certificate = b""
        self._in_head = self._in_body = False
        self._head_bytes = self._headers = self._body_bytes = self._body_wire = self._pieces = 0

    @property
    def certificate_name(self) -> str:
        """The name in the caller's certificate; empty if there is none, or if it has expired."""
        return name_in(self._certificate) if self._certificate else ""

    @property
    def ends(self) -> bool:
        """Whether the next reply is the last one of this connection.

        Old connections end so that callers find new servers. A connection also ends if a request was answered before
        it had arrived, because its rest could not be told from the next request.
        """
        old = self.loop.time() - self._opened > self._limits.connection_seconds
        return self._all.draining or old or self._is_cut_short

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection was opened."""
        super().connection_made(transport)
        self.peer = peer_of(transport)
        self.caller = caller_of(self.peer)
        secure = transport.get_extra_info("ssl_object")
        self._certificate = (secure and secure.getpeercert(binary_form=True)) or b""
        self._opened = self.loop.time()
        self._wait(Phase.HEAD, self._limits.head_seconds)
        if not self._all.admit(self):
            self._refuse(503, "there are too many connections; retry later")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was closed; no one waits for the call in progress."""
        super().connection_lost(exc)
        self.lost = True
        self._all.forget(self)
        if self.call is not None:
            self.call.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._phase is Phase.IDLE:
            self._wait(Phase.HEAD, self._limits.head_seconds)
        had_head, had_body = self._in_head, self._in_body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(*self._reason)
        if self._in_head and had_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(*self._head_too_large())
        if self._in_body and had_body:
            self._body_wire += len(data)
            if self._body_wire > 2 * self._body_bytes + FREE_BYTES:
                self._refuse(400, "the body's chunks take more than the body")

    def on_message_begin(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= MOST_AHEAD:
            self._fail(400, f"more than {MOST_AHEAD} requests were sent ahead")
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._headers = self._body_bytes = self._body_wire = self._pieces = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target has arrived."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has arrived, or a trailer, which is ignored."""
        self._headers += 1
        self._count_head(len(name) + len(value) + 4)
        if not self._in_head:
            return
        super().on_header(name, value)
        if self.headers[-1][0] == b"transfer-encoding" and value.lower() != b"chunked":
            self._fail(501, "the only transfer encoding that this server knows is chunked")

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self.parser.should_upgrade():
            return
        self._in_head, self._in_body = False, True
        self._all.begin(self)
        super().on_headers_complete()
        self._wait(Phase.BODY, self._limits.request_seconds)

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._body_bytes += len(body)
        self._pieces += 1
        if self._pieces > FREE_PIECES and self._pieces * LEAST_PIECE > self._body_bytes:
            self._fail(400, f"the body comes in chunks of fewer than {LEAST_PIECE} bytes")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._in_body:
            return
        self._in_body = False
        super().on_message_complete()
        self._wait(Phase.CALL, math.inf)

    def on_response_complete(self) -> None:
        """The reply is written: to the system, or to a buffer until the caller reads."""
        super().on_response_complete()
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            return
        self._all.rest(self)
        if self.transport.is_closing():
            self._wait(Phase.REPLY, self._limits.reply_seconds)
        elif self._in_body:
            self._linger()
        elif self._in_head:
            self._wait(Phase.HEAD, self._limits.head_seconds)
        else:
            # uvicorn closes idle connections itself, but waits for callers that do not read.
            self._wait(Phase.IDLE, self._limits.idle_seconds + self._limits.reply_seconds)

    def unpacking(self, caller: str) -> asyncio.Lock:
        """The lock to hold while a large body of a caller is unpacked."""
        return self._all.unpacking(caller)

    def begin_reply(self) -> None:
        """A reply is ready to be sent."""
        self._wait(Phase.REPLY, self._limits.reply_seconds)

    def end_reply(self) -> None:
        """The last piece of a reply is about to be sent."""
        if self._is_cut_short and not self.lost:
            # The rest of the request is received before the connection is closed: see `_linger`.
            self.cycle.keep_alive = True

    async def sent(self) -> None:
        """Wait until the caller has taken all but 64 KiB of a reply, or is gone."""
        if not self.flow.write_paused:
            return
        if self._phase is Phase.IDLE:
            self._wait(Phase.REPLY, self._limits.reply_seconds)
        while self.flow.write_paused and not self.lost:
            await self.flow.drain()
        if self._phase is Phase.REPLY and not self.transport.is_closing():
            self._wait(Phase.IDLE, self._limits.idle_seconds + self._limits.reply_seconds)

    def abort(self) -> None:
        """Close it at once, even if there is more to send."""
        self.transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        self.until = math.inf
        if self._phase is Phase.BODY and self.cycle is not None and not self.cycle.response_complete:
            self._refuse(408, f"the request did not arrive within {self._limits.request_seconds:g} s")
        elif self._phase is Phase.HEAD and self._in_head:
            self._refuse(408, f"the request's head did not arrive within {self._limits.head_seconds:g} s")
        else:
            if self._phase is Phase.REPLY:
                logger.warning(
                    "%s has not taken a reply within %g s (--max-reply-seconds): its connection was ended",
                    self.peer,
                    self._limits.reply_seconds,
                )
            self.abort()

    @property
    def _is_cut_short(self) -> bool:
        """Whether the request being answered is still arriving (and not a later one, sent ahead)."""
        return self._in_body and not self.pipeline

    def _wait(self, phase: Phase, seconds: float) -> None:
        self._phase = phase
        self.until = self.loop.time() + seconds

    def _fail(self, status: int, reason: str) -> None:
        """Stop the parser."""
        self._reason = (status, reason)
        raise ValueError(reason)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes or self._headers > self._limits.headers:
            self._fail(*self._head_too_large())

    def _head_too_large(self) -> tuple[int, str]:
        return 431, f"a request's head has at most {self._limits.head_bytes} bytes and {self._limits.headers} headers"

    def _refuse(self, status: int, reason: str) -> None:
        """Receive nothing more. Replies in progress come first; a call that is reading its request gets the reason."""
        if self._deaf:
            return
        self._deaf = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if self._in_body:
                self.fault = (status, reason)
                self.cycle.message_event.set()
            return
        text = f"{reason}\n".encode()
        head = (
            f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\nconnection: close\r\n"
            + ("retry-after: 1\r\n" if status == 503 else "")
            + "\r\n"
        )
        self.transport.write(STATUS_LINE[status] + head.encode() + text)
        self._linger()

    def _linger(self) -> None:
        """Close once the caller has closed, or has had time to read the reply."""
        self._deaf = True
        self._unset_keepalive_if_required()
        self._wait(Phase.CLOSE, LINGER_SECONDS)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its offer of another protocol: Java's clients offer HTTP/2 with each request.

        The parser assumes that the other protocol follows, so a new parser takes over.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "this server is no proxy")
            return
        kept = [pair for pair in self.headers if pair[0] not in (b"upgrade", b"connection", b"http2-settings")]
        head = b"".join(b"%b: %b\r\n" % pair for pair in kept)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, self.url, head, rest))
