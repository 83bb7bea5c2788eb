"""What listens for gRPC in the native front end: HTTP/2 in a thread of its own, calls and replies many at once."""

import asyncio
import base64
import logging
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote
from weakref import WeakValueDictionary

from birnn_native.front import FrontLimits, NativeFront, News, Order, Refusals, Room, command_of
from birnn_service.call import Exchange, Feed, Method
from birnn_service.endpoint import Endpoint
from birnn_service.errors import OverloadedError, Reason, ServiceError, StartupError, UnexpectedError
from birnn_service.memory_budget import RETRY_SECONDS, mib
from birnn_service.settings import Settings
from birnn_service.transports.caller import caller_of
from birnn_service.transports.grpc_server import GRACE_SECONDS, HOLD_SECONDS, PENDING, Services, by_path
from birnn_service.transports.grpc_status import metadata_of
from birnn_service.transports.native_call import NativeCall
from birnn_service.transports.socket_address import SocketAddress

logger = logging.getLogger(__name__)

# Of the memory of this process, what may have come without being admitted.
UNREAD_SHARE = 1 / 16
# How long to wait where memory was short.
SHORT_SECONDS = 0.1
# What gRPC does not escape in a status message: printable ASCII but for the percent sign.
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class NativeServer:
    """Takes calls over gRPC and hands them to an endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        services: Services,
        address: SocketAddress,
        settings: Settings,
        *,
        share_port: bool = False,
    ) -> None:
        """Take calls to `services`.

        Args:
            endpoint: Where calls go.
            services: What can be called.
            address: Where to listen.
            settings: Limits.
            share_port: Let other processes of this user take calls on the same port.
        """
        self.refused_connections = 0
        self._left = False
        self.request_seconds = settings.max_request_seconds
        self.most_bytes = settings.max_message_mib << 20
        self._endpoint = endpoint
        self._address = address
        self._share_port = share_port
        self._reply_seconds = settings.max_reply_seconds
        methods = by_path(services)
        self._methods: Sequence[Method | Feed | Exchange] = list(methods.values())
        self._streams = {path: isinstance(method, Exchange) for path, method in methods.items()}
        self._limits = FrontLimits(
            message=self.most_bytes,
            unread=round(UNREAD_SHARE * settings.process_memory_bytes),
            connections=settings.max_connections,
            calls=settings.max_calls + PENDING,
            head_seconds=settings.max_head_seconds,
            reply_seconds=settings.max_reply_seconds,
            age_seconds=settings.max_connection_seconds,
        )
        limits = self._limits
        self._refusals = Refusals(
            no_call=_refusal(
                f"this server has {limits.calls} calls waiting, its limit (by --max-calls); retry later", Reason.CALLS
            ),
            no_memory=_refusal(
                f"calls that wait to be admitted hold what they may of {mib(limits.unread)} MiB (by --memory-mib), "
                "three quarters of it for one caller; retry later, or send less at a time",
                Reason.MEMORY,
            ),
        )
        self._front: NativeFront | None = None
        self._calls: dict[int, NativeCall] = {}
        # Connections by number, and who is at the other end.
        self._peers: dict[int, str] = {}
        self._quiet = asyncio.Event()
        self._orders: list[bytes] = []
        self._unpacking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def listen(self) -> int:
        """Begin to take calls.

        Returns:
            The port.

        Raises:
            StartupError: It is taken, the address is not this machine's, or the system refuses what is needed.
        """
        listener = self._address.listen(share=self._share_port)
        listener.setblocking(False)
        port: int = listener.getsockname()[1]
        try:
            self._front = NativeFront(listener.detach(), self._streams, self._limits, self._refusals)
        except OSError as error:
            raise StartupError(str(error)) from error
        self._follow()
        return port

    async def leave(self) -> None:
        """Close the port, and tell clients to turn elsewhere.

        What they send before they hear of it is answered, or they are told that it was not looked at. gRPC's clients
        then send it to another server by themselves.
        """
        if self._front is None or self._left:
            return
        self._left = True
        self.order(0, Order.GOAWAY)
        await asyncio.sleep(HOLD_SECONDS)
        self.order(0, Order.FINISH)

    async def close(self) -> None:
        """Leave, close all connections, and let what is computed be sent."""
        if self._front is None:
            return
        await self.leave()
        self._quiet.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while self._peers:
                    self._quiet.clear()
                    await self._quiet.wait()
        asyncio.get_running_loop().remove_reader(self._front.descriptor)
        front, self._front = self._front, None
        front.close()
        for call in self._calls.values():
            call.close()
        self._calls.clear()

    def order(self, id_: int, order: int, status: int = 0, message: bytes = b"", trailers: bytes = b"") -> None:
        """Have something done; what is ordered in one iteration of the event loop goes out at its end."""
        if not self._orders:
            asyncio.get_running_loop().call_soon(self._send)
        self._orders.append(command_of(id_, order, status, message, trailers))

    def unpacking(self, caller: str) -> asyncio.Lock:
        """Held while a large message of a caller is unpacked, so that its others wait."""
        lock = self._unpacking.get(caller)
        if lock is None:
            lock = self._unpacking[caller] = asyncio.Lock()
        return lock

    def _send(self) -> None:
        orders, self._orders = self._orders, []
        if self._front is not None:
            self._front.send(b"".join(orders))

    def _follow(self) -> None:
        """Take in what has happened so far, and from now on what happens."""
        if self._front is not None:
            asyncio.get_running_loop().add_reader(self._front.descriptor, self._take)
            self._take()

    def _take(self) -> None:
        """Take in what has happened."""
        if self._front is None:
            return
        try:
            events = self._front.take()
        except MemoryError:
            logger.error("there is no memory for the calls that have come; trying again in %g s", SHORT_SECONDS)
            loop = asyncio.get_running_loop()
            # Until then it would be called over and over, as there are events.
            loop.remove_reader(self._front.descriptor)
            loop.call_later(SHORT_SECONDS, self._follow)
            return
        for event in events:
            try:
                self._hear(*event)
            except Exception as error:  # what came with it is of other callers
                logger.error("the gRPC front end told something unexpected", exc_info=error)

    def _hear(
        self, id_: int, news: int, method: int, timeout: float, length: int, message: bytes, metadata: bytes
    ) -> None:
        if news & News.OPENED:
            call = NativeCall(self, id_, caller_of(self._peers[id_ >> 32]), timeout, metadata)
            self._calls[id_] = call
            if news & News.MESSAGE:
                call.arrived(message, packed=bool(news & News.PACKED))
            call.task = asyncio.get_running_loop().create_task(self._answer(self._methods[method], call))
        elif news == News.CLOSED:
            self._calls.pop(id_).close()
        elif news & News.MESSAGE:
            self._calls[id_].arrived(message, packed=bool(news & News.PACKED))
        elif news == News.TAKEN:
            self._calls[id_].taken(length)
        elif news == News.HALF_CLOSED:
            self._calls[id_].half_closed()
        elif news == News.ANNOUNCED:
            self._calls[id_].announced(length)
        elif news == News.CONNECTED:
            self._peers[id_ >> 32] = metadata.decode()
        elif news == News.DISCONNECTED:
            del self._peers[id_ >> 32]
            self._quiet.set()
        elif news == News.REFUSED:
            self._count_refused(method, length)
        elif news == News.FAILED:
            reason = f"the gRPC front end has failed: {metadata.decode(errors='replace')}"
            logger.error("%s; not ready until this process is started again", reason)
            self._endpoint.fail(reason)
        elif news == News.LATE:
            logger.warning(
                "%s has not taken a reply within %g s (--max-reply-seconds): its connection was ended",
                self._peers[id_ >> 32],
                self._reply_seconds,
            )

    def _count_refused(self, room: int, count: int) -> None:
        if room == Room.CONNECTIONS:
            self.refused_connections += count
        else:
            self._endpoint.count_refused(count, Reason.CALLS if room == Room.CALLS else Reason.MEMORY)

    async def _answer(self, method: Method | Feed | Exchange, call: NativeCall) -> None:
        try:
            if isinstance(method, Method):
                call.reply(await self._endpoint.answer(method, call))
                return
            if isinstance(method, Exchange):
                await self._endpoint.converse(method, call)
            else:
                async for reply in self._endpoint.feed(method, call):
                    await call.write(reply)
            call.end()
        except ServiceError as error:
            self._fail(call, error)
        except Exception as error:  # of this transport: the endpoint raises nothing else
            logger.error("a call failed unexpectedly", exc_info=error)
            self._fail(call, UnexpectedError(f"the server failed unexpectedly ({type(error).__name__})"))

    @staticmethod
    def _fail(call: NativeCall, error: ServiceError) -> None:
        call.end(error.code, _trailers_of(error))


def _refusal(message: str, reason: Reason) -> bytes:
    return _trailers_of(OverloadedError(message, RETRY_SECONDS, reason))


def _trailers_of(error: ServiceError) -> bytes:
    return _written([("grpc-message", _escaped(error.message)), *metadata_of(error)])


def _escaped(message: str) -> str:
    """A status message as gRPC writes it: UTF-8 with what is not plain in percent notation."""
    return quote(message, safe=PLAIN)


def _written(fields: Sequence[tuple[str, str | bytes]]) -> bytes:
    """Trailers, as `birnn_front.h` has them; binary values in base64."""
    texts = [
        (name, base64.b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value)
        for name, value in fields
    ]
    return "".join(f"{name}\0{value}\0" for name, value in texts).encode("ascii")
