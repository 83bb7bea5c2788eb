"""A native front end that takes calls, and clients that send what no library would."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from birnn_native.front import load_front
from birnn_native.library import NativeUnavailableError
from birnn_service.call import Call, Exchange, Feed, Method
from birnn_service.conversation import parsed
from birnn_service.endpoint import Endpoint
from birnn_service.errors import OverloadedError, Reason
from birnn_service.observe.metrics import Metrics
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.state import ServingState
from birnn_service.transports.native_server import NativeServer
from tests.service.test_endpoint import endpoint_of
from tests.service.transports.raw_http2 import RawClient, connected, message

MIB = 1 << 20
HEADERS, RESET, SETTINGS, PING, CONTINUATION, PRIORITY = 1, 3, 4, 6, 9, 2
CALM, CANCEL = 11, 8
UNARY, STREAM = "/test/ModelInfer", "/test/Stream"

try:
    load_front()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)


@dataclass
class Answers:
    """Answers that can be told from outside."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    cancelled: int = 0
    seen: list[int] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)

    async def __call__(self, request: bytes, call: Call) -> bytes:
        self.begun += 1
        self.callers.add(call.caller)
        self.seen.append(len(request))
        if request == b"held":
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request == b"large":
            return bytes(MIB)
        if request == b"refused":
            raise OverloadedError("100 % of ü", 1.5, Reason.MEMORY)
        return request[:100]


@dataclass
class Served:
    """A server that takes calls."""

    port: int
    endpoint: Endpoint
    answers: Answers
    server: NativeServer
    metrics: Metrics
    state: ServingState


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Served]:
    """A server of one method and one stream."""
    answers = Answers()
    loaded: Settings = load_settings({"grpc_port": 0, **settings})
    metrics, state = Metrics(), ServingState()
    state.start()
    endpoint = endpoint_of(loaded, metrics, state)
    methods: list[Method | Feed | Exchange] = [
        Method("ModelInfer", bytes, answers, lambda request: ("", "")),
        Exchange(
            "Stream",
            lambda content: (None, content),
            Method("Stream", parsed, answers, lambda request: ("", "")),
            lambda _, error: error.message.encode(),
            ordered=True,
        ),
    ]
    server = NativeServer(endpoint, {"test": methods}, loaded.grpc_address, loaded)
    port = await server.listen()
    try:
        yield Served(port, endpoint, answers, server, metrics, state)
    finally:
        await server.close()


@asynccontextmanager
async def greeted(port: int, window: int | None = None) -> AsyncIterator[RawClient]:
    """A connection that may call."""
    async with connected(port) as client:
        client.greet(window)
        await client.until(lambda: client.http2.remote_settings.max_concurrent_streams == 1024)
        yield client


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def is_answered(port: int) -> bool:
    async with greeted(port) as client:
        stream = client.call(UNARY)
        client.send(stream, message(b"hello"), end=True)
        assert await client.status(stream) == (0, "")
        return client.content[stream] == message(b"hello")
