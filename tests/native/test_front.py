"""The gRPC front end alone, with clients that keep to HTTP/2 by the letter only."""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from birnn_native.front import Event, FrontLimits, NativeFront, News, Order, command_of, load_front
from birnn_native.library import NativeUnavailableError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
ASK = "/a/Ask"
LIMITS: dict[str, Any] = {
    "message": 1 << 20,
    "unread": 1 << 20,
    "connections": 100,
    "calls": 1000,
    "head_seconds": 600.0,
    "reply_seconds": 600.0,
    "age_seconds": 600.0,
}


@pytest.fixture(autouse=True, scope="module")
def _needs_front() -> None:
    try:
        load_front()
    except NativeUnavailableError as error:
        pytest.skip(str(error))


class Front:
    """A front end, and what it has told."""

    def __init__(self, **limits: float) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        self.front = NativeFront(listener.detach(), {ASK: False}, FrontLimits(**LIMITS | limits))
        self.events: list[Event] = []

    def until(self, holds: Callable[[list[Event]], bool]) -> None:
        """Take what it tells until something holds."""
        deadline = time.monotonic() + 60
        while not holds(self.events):
            assert time.monotonic() < deadline, "it does not come to that"
            select.select([self.front.descriptor], [], [], 1)
            self.events += self.front.take()

    def closed(self) -> int:
        """How many calls it has told as closed."""
        return sum(event[1] == News.CLOSED for event in self.events)


@contextmanager
def front(**limits: float) -> Iterator[Front]:
    """A front end with some other limits."""
    found = Front(**limits)
    with closing(found.front):
        yield found


class Client:
    """A connection whose frames are written by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(60)
        # What it does not read soon stays with the server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.socket.connect(("127.0.0.1", port))
        window = struct.pack("!HI", 4, (1 << 31) - 1)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, window))
        self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", (1 << 31) - 1 - 65535)))

    def read(self) -> tuple[int, int, int, bytes]:
        """Receive a frame: its type, flags, stream and payload."""
        head = self._exactly(9)
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        return kind, flags, stream, self._exactly(int.from_bytes(head[:3], "big"))

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


def test_a_malformed_head_does_not_end_its_connection() -> None:
    """A head that HTTP/2 refuses is over: it does not count as one that takes too long."""
    with front(head_seconds=0.2) as server:
        client = Client(server.port)
        client.socket.sendall(head(1, **{":scheme": ""}))
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            client.ping()
            time.sleep(0.05)


def test_a_call_is_closed_once_its_reply_is_gone_whatever_else_is_sent() -> None:
    """What is held for a reply is let go when its client has it, though the connection has other things to write."""
    with front() as server:
        client = Client(server.port)
        reply = bytes(4 << 20)
        for stream in (1, 3, 5, 7, 9, 11):
            client.socket.sendall(head(stream) + message(stream, 10))
        server.until(lambda events: sum(bool(event[1] & News.MESSAGE) for event in events) == 6)
        opened = [event[0] for event in server.events if event[1] & News.OPENED]
        for id_ in opened[1:]:
            server.front.send(command_of(id_, Order.REPLY, message=reply))
        server.front.send(command_of(opened[0], Order.REPLY, message=b"short"))
        while True:
            _, flags, stream, _ = client.read()
            if stream == 1 and flags & END_STREAM:
                break
        server.until(lambda events: any(event[:2] == (opened[0], News.CLOSED) for event in events))
        client.socket.close()
        server.until(lambda _: server.closed() == 6)
