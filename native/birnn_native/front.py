"""The gRPC front end, loaded through its plain C interface; `include/birnn_front.h` says what each thing means."""

import ctypes
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from birnn_native.library import load_shared

# Most events that are taken at once.
MOST = 256
# A message above this size is sent from where it is.
INLINE_BYTES = 1 << 16

_POINTER, _SIZE, _INT32, _INT64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int64
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "birnn_front_open": (_POINTER, [_INT32, _POINTER, ctypes.c_char_p, _SIZE]),
    "birnn_front_descriptor": (_INT32, [_POINTER]),
    "birnn_front_take": (_INT64, [_POINTER, _POINTER, _INT64, _INT32]),
    "birnn_front_bytes": (_POINTER, [_POINTER, _POINTER]),
    "birnn_front_send": (_INT32, [_POINTER, ctypes.c_char_p, _INT64]),
    "birnn_front_close": (None, [_POINTER]),
}
"""Result and arguments of each function of `include/birnn_front.h`."""

EVENT = struct.Struct("=QIidQQQQQ")
COMMAND = struct.Struct("=QiiQII")


class News:
    """What happened: `birnn_front_news`."""

    OPENED: Final = 1
    MESSAGE: Final = 2
    HALF_CLOSED: Final = 4
    ANNOUNCED: Final = 8
    TAKEN: Final = 16
    CLOSED: Final = 32
    CONNECTED: Final = 64
    DISCONNECTED: Final = 128
    LATE: Final = 256
    PACKED: Final = 512
    REFUSED: Final = 1024
    FAILED: Final = 2048


class Room:
    """For want of what something is refused: `birnn_front_room`."""

    CONNECTIONS: Final = 0
    CALLS: Final = 1
    UNREAD: Final = 2


class Order:
    """What to do: `birnn_front_order`."""

    SEND: Final = 1
    REPLY: Final = 2
    END: Final = 3
    ADMIT: Final = 4
    TOOK: Final = 5
    GOAWAY: Final = 6
    FINISH: Final = 7


Event = tuple[int, int, int, float, int, bytes, bytes]
"""`birnn_front_event`: id, news, method, timeout, length, and the message and the metadata themselves."""


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """What bounds a front end: the numbers of `birnn_front_settings`, in bytes and seconds."""

    message: int
    unread: int
    connections: int
    calls: int
    head_seconds: float
    reply_seconds: float
    age_seconds: float


class _Settings(ctypes.Structure):
    _fields_ = (
        ("paths", _POINTER),
        ("streams", ctypes.c_char_p),
        *((name, _INT64) for name in ("message", "unread", "connections", "calls")),
        *((name, ctypes.c_double) for name in ("head_seconds", "reply_seconds", "age_seconds")),
        *((name, ctypes.c_char_p) for name in ("no_call", "no_memory")),
    )


@dataclass(frozen=True, slots=True)
class Refusals:
    """Trailers of calls that are refused with RESOURCE_EXHAUSTED before they are told: name NUL value NUL ...

    Attributes:
        no_call: Of those beyond the limit on calls.
        no_memory: Of those beyond the limit on unread bytes.
    """

    no_call: bytes = b""
    no_memory: bytes = b""


@cache
def load_front() -> ctypes.CDLL:
    """The shared library beside this file.

    Raises:
        NativeUnavailableError: It is not there, or cannot be loaded here.
    """
    what = "the native gRPC front end"
    needs = (
        "install from a wheel for Linux, or from source where there are a C++17 compiler, pkg-config and libnghttp2 "
        "1.52 or newer (Debian: libnghttp2-dev)"
    )
    return load_shared("_front.so", what, f"{what} was not built: {needs}", PROTOTYPES)


class NativeFront:
    """A front end that takes calls. One thread uses it."""

    def __init__(
        self, listener: int, methods: Mapping[str, bool], limits: FrontLimits, refusals: Refusals = Refusals()
    ) -> None:
        """Begin to take calls.

        Args:
            listener: Descriptor of a socket that listens; owned from now on.
            methods: Paths, and whether calls of each hold many messages. Events number them in this order.
            limits: What bounds calls and connections.
            refusals: What calls beyond the limits are told.

        Raises:
            NativeUnavailableError: The library is not there.
            OSError: The system refuses what is needed.
        """
        self._library = load_front()
        paths = (ctypes.c_char_p * (len(methods) + 1))(*(path.encode("ascii") for path in methods), None)
        streams = bytes(methods.values())
        settings = _Settings(
            ctypes.cast(paths, _POINTER),
            streams,
            *(getattr(limits, name) for name in limits.__slots__),
            refusals.no_call,
            refusals.no_memory,
        )
        error = ctypes.create_string_buffer(256)
        self._front = self._library.birnn_front_open(listener, ctypes.byref(settings), error, len(error))
        if not self._front:
            raise OSError(f"the gRPC front end does not start: {error.value.decode(errors='replace')}")
        self._events = ctypes.create_string_buffer(EVENT.size * MOST)
        self._view = memoryview(self._events)
        # Whether the events that were taken last could not be returned.
        self._again = False
        self._size = _INT64()
        self._size_at = ctypes.byref(self._size)
        self.descriptor: int = self._library.birnn_front_descriptor(self._front)

    def take(self) -> list[Event]:
        """The events that there are, or as many as may be taken at once.

        Raises:
            MemoryError: There is no memory for them; the next call returns them.
        """
        again, self._again = self._again, True
        count = self._library.birnn_front_take(self._front, self._events, MOST, again)
        if count < 0:
            raise MemoryError
        found = self._library.birnn_front_bytes(self._front, self._size_at)
        held = ctypes.string_at(found, self._size.value)
        events = [
            (
                id_,
                news,
                method,
                timeout,
                length,
                held[message : message + size] if size <= INLINE_BYTES else ctypes.string_at(message, size),
                held[metadata : metadata + metadata_size],
            )
            for id_, news, method, timeout, length, message, size, metadata, metadata_size in EVENT.iter_unpack(
                self._view[: count * EVENT.size]
            )
        ]
        self._again = False
        return events

    def send(self, commands: bytes) -> None:
        """Carry out commands; see `command_of`.

        Raises:
            MemoryError: There is no memory for them, and none is carried out.
        """
        if self._library.birnn_front_send(self._front, commands, len(commands)):
            raise MemoryError

    def close(self) -> None:
        """End all connections; nothing may be used afterwards."""
        self._library.birnn_front_close(self._front)


def command_of(id_: int, order: int, status: int = 0, message: bytes = b"", trailers: bytes = b"") -> bytes:
    """A command. A message above `INLINE_BYTES` must be kept until it was taken or its call is closed."""
    if len(message) <= INLINE_BYTES:
        return COMMAND.pack(id_, order, status, 0, len(message), len(trailers)) + message + trailers
    place = ctypes.cast(ctypes.c_char_p(message), _POINTER).value or 0
    return COMMAND.pack(id_, order, status, place, len(message), len(trailers)) + trailers
