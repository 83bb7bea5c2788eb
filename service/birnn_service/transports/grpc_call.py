"""A call that came over gRPC."""

import asyncio
import time
from collections.abc import Callable

import grpc

from birnn_service.transports.arrivals import Arrivals
from birnn_service.transports.caller import caller_of
from birnn_service.transports.certificate_name import name_in
from birnn_service.transports.departures import Departures

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"


class GrpcCall:
    """An `Incoming` call or a `Stream` of grpcio's."""

    __slots__ = ("_arrivals", "_context", "_departures", "_peer", "caller", "request_id", "traceparent")

    path = ""

    def __init__(self, context: grpc.aio.ServicerContext, arrivals: Arrivals, departures: Departures) -> None:
        self._context = context
        self._arrivals = arrivals
        self._departures = departures
        self._peer = context.peer()
        self.caller = caller_of(self._peer)
        self.request_id = self.traceparent = ""
        for key, value in context.invocation_metadata() or ():
            if key == REQUEST_ID:
                self.request_id = self.request_id or str(value)
            elif key == TRACEPARENT:
                self.traceparent = str(value)
        if self.request_id:
            context.set_trailing_metadata(((REQUEST_ID, self.request_id),))

    @property
    def deadline(self) -> float | None:
        """When the caller gives up, on `time.monotonic`; None where it never does."""
        remaining = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining

    def header(self, name: str) -> str:
        """Metadata by its name; joined by commas where it came more than once."""
        return ", ".join(str(value) for key, value in self._context.invocation_metadata() or () if key == name)

    @property
    def certificate_name(self) -> str:
        """Of the caller, by a certificate that was verified; empty for none."""
        certificates = self._context.auth_context().get("x509_pem_cert", ())
        return next((name_in(bytes(certificate)) for certificate in certificates), "")

    async def read(self, grow: Callable[[int], None]) -> bytes:
        """Receive the request; see `Arrivals.read`. gRPC does not tell how much of it has come, so nothing grows."""
        try:
            return await self._arrivals.read(self._context, self.caller)
        except grpc.aio.BaseError as error:  # the call has ended
            raise asyncio.CancelledError from error

    async def next(self, grow: Callable[[int], None]) -> bytes | None:
        """Receive the next request of a stream; see `Arrivals.next`. Nothing grows, as in `read`."""
        try:
            return await self._arrivals.next(self._context)
        except grpc.aio.BaseError as error:  # the call has ended
            raise asyncio.CancelledError from error

    async def write(self, reply: bytes) -> None:
        """Send a reply of a stream."""
        self.begin_reply()
        try:
            await self._context.write(reply)
        except grpc.aio.BaseError as error:  # the call has ended
            raise asyncio.CancelledError from error
        finally:
            self._departures.end(self._context)

    def begin_reply(self) -> None:
        """From now on the caller has time to take a reply; see `Departures`."""
        self._departures.begin(self._context, self._peer)

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have `ended` called once the reply has been sent, or the caller has gone."""

        def end(_: object) -> None:
            ended()
            self._departures.end(self._context)

        self._context.add_done_callback(end)
