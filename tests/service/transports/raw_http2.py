"""A client of HTTP/2 that sends what it is told, frame by frame."""

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.service.transports.clock import PATIENCE_SECONDS

GOAWAY = 7


def message(content: bytes, flag: int = 0) -> bytes:
    """A message behind its prefix."""
    return struct.pack(">BI", flag, len(content)) + content


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # Of the two ends the server alone is under test.
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.http2 = h2.connection.H2Connection(config)
        self.fields: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.content: defaultdict[int, bytes] = defaultdict(bytes)
        self.resets: dict[int, int] = {}
        self.over: set[int] = set()
        self.farewell: int | None = None
        self.closed = False
        self._raw = b""
        self._greeted = False

    def greet(self, window: int | None = None) -> None:
        """Send the preface, with an initial window for what the server sends."""
        if window is not None:
            values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.http2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.http2.initiate_connection()
        self._greeted = True
        self.flush()

    def call(self, path: str, *fields: tuple[str, str], method: str = "POST", kind: str = "application/grpc") -> int:
        """Send the head of a call; returns its stream."""
        stream: int = self.http2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
        self.http2.send_headers(stream, [*pseudo, ("content-type", kind), ("te", "trailers"), *fields])
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> int:
        """Send what the windows let through at most; returns how many bytes."""
        size = min(len(data), self.http2.local_flow_control_window(stream))
        for start in range(0, size, self.http2.max_outbound_frame_size):
            piece = data[start : min(size, start + self.http2.max_outbound_frame_size)]
            self.http2.send_data(stream, piece, end_stream=end and start + len(piece) == len(data))
        self.flush()
        return size

    async def send_all(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send everything, as the windows allow, unless the server ends the stream before."""
        while data and stream not in self.over:
            data = data[self.send(stream, data, end=end) :]
            if data:
                await self.until(lambda: stream in self.over or self.http2.local_flow_control_window(stream) > 0)

    def write(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(raw)

    def flush(self) -> None:
        self._writer.write(self.http2.data_to_send())

    async def until(self, condition: Callable[[], object]) -> None:
        """Read until a state has come about."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                assert not self.closed, "the connection has ended"
                await self._read()

    async def ended(self) -> None:
        """Read until the server ends the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.closed:
                await self._read()

    async def status(self, stream: int) -> tuple[int, str]:
        """Status and message of a call, once it has ended."""
        await self.until(lambda: stream in self.over)
        return int(self.fields[stream].get("grpc-status", "-1")), self.fields[stream].get("grpc-message", "")

    async def _read(self) -> None:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        if not self._greeted:  # then what comes is no answer to what the library sent
            return
        self._raw += data
        while len(self._raw) >= 9 and len(self._raw) >= (end := 9 + int.from_bytes(self._raw[:3])):
            frame, self._raw = self._raw[:end], self._raw[end:]
            if frame[3] == GOAWAY:  # after which the library would do nothing more
                self.farewell = int.from_bytes(frame[13:17])
                continue
            for event in self.http2.receive_data(frame):
                self._note(event)
        if not self._writer.is_closing():
            self.flush()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.fields[event.stream_id].update((str(name), str(value)) for name, value in event.headers)
            case h2.events.DataReceived():
                self.content[event.stream_id] += event.data
            case h2.events.StreamEnded():
                self.over.add(event.stream_id)
            case h2.events.StreamReset():
                self.resets[event.stream_id] = int(event.error_code)

    def leave(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawClient]:
    """A connection that has not sent anything yet."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.leave()
