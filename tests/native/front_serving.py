"""The gRPC front end alone, and clients whose frames are written by hand."""

import select
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import hpack
import pytest

from birnn_native.front import Event, FrontLimits, NativeFront, News, Refusals, load_front
from birnn_native.library import NativeUnavailableError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
ASK, CHAT = "/a/Ask", "/a/Chat"
REFUSALS = Refusals(b"grpc-message\0no call\0", b"grpc-message\0no memory\0retry\0soon\0")
LIMITS: dict[str, Any] = {
    "message": 1 << 20,
    "unread": 1 << 20,
    "connections": 100,
    "calls": 1000,
    "head_seconds": 600.0,
    "reply_seconds": 600.0,
    "age_seconds": 600.0,
}

try:
    load_front()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)


class Front:
    """A front end, and what it has told."""

    def __init__(self, **limits: float) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        methods = {ASK: False, CHAT: True}
        self.front = NativeFront(listener.detach(), methods, FrontLimits(**LIMITS | limits), REFUSALS)
        self.events: list[Event] = []

    def until(self, holds: Callable[[list[Event]], bool]) -> None:
        """Take what it tells until something holds."""
        deadline = time.monotonic() + 60
        while not holds(self.events):
            assert time.monotonic() < deadline, "it does not come to that"
            select.select([self.front.descriptor], [], [], 1)
            self.events += self.front.take()

    def take_all(self) -> None:
        """Take what there is."""
        while found := self.front.take():
            self.events += found

    def count(self, news: int) -> int:
        """How many events say something."""
        return sum(bool(event[1] & news) for event in self.events)

    def refused(self, room: int) -> int:
        """How many calls or connections were refused for want of a kind of room."""
        return sum(event[4] for event in self.events if (event[1], event[2]) == (News.REFUSED, room))


@contextmanager
def front(**limits: float) -> Iterator[Front]:
    """A front end with some other limits."""
    found = Front(**limits)
    with closing(found.front):
        yield found


class Client:
    """A connection whose frames are written by hand."""

    def __init__(self, port: int | None, window: int = (1 << 31) - 1) -> None:
        """Connect and say hello, with an initial window for replies; without a port later."""
        self.socket = socket.socket()
        self.socket.settimeout(60)
        self.fields: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self._decoder = hpack.Decoder()
        # What it does not read soon stays with the server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        if port is not None:
            self.connect(port, window)

    def connect(self, port: int, window: int = (1 << 31) - 1) -> None:
        """Connect and say hello."""
        self.socket.connect(("127.0.0.1", port))
        settings = struct.pack("!HI", 4, window)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", (1 << 31) - 1 - 65535)))

    def read(self) -> tuple[int, int, int, bytes]:
        """Receive a frame: its type, flags, stream and payload."""
        head = self._exactly(9)
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        if kind == HEADERS:
            self.fields[stream].update((str(name), str(value)) for name, value in self._decoder.decode(payload))
        return kind, flags, stream, payload

    def status(self, stream: int) -> dict[str, str]:
        """Receive frames until a call has ended; returns the fields that came of it."""
        while True:
            _, flags, number, _ = self.read_until(HEADERS)
            if number == stream and flags & END_STREAM:
                return self.fields[stream]

    def read_until(self, wanted: int) -> tuple[int, int, int, bytes]:
        """Receive frames until one is of a type."""
        while True:
            found = self.read()
            if found[0] == wanted:
                return found

    def ping(self) -> None:
        """Have all taken in that was sent before."""
        self.socket.sendall(frame(PING, 0, 0, bytes(8)))
        while True:
            kind, flags, _, payload = self.read()
            assert kind != GOAWAY, payload
            if kind == PING and flags & ACK:
                return

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.socket.recv(size - len(found))
            assert part, "the connection was ended"
            found += part
        return found


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def head(stream: int, **others: str) -> bytes:
    """The head of a call; a name that is empty is left out."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "a",
        ":path": ASK,
        "content-type": "application/grpc",
    } | others
    texts = [(name.encode(), value.encode()) for name, value in fields.items() if value]
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in texts)
    return frame(HEADERS, END_HEADERS, stream, block)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest = len(text) - 127
    return bytes([127, rest % 128 + 128, rest // 128]) + text


def message(stream: int, size: int) -> bytes:
    """A message, and the end of what the client sends."""
    found = struct.pack("!BI", 0, size) + bytes(size)
    parts = [found[at : at + 16384] for at in range(0, len(found), 16384)]
    return b"".join(frame(DATA, END_STREAM * (part is parts[-1]), stream, part) for part in parts)
