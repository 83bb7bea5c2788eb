"""What the gRPC front end holds is bounded, whatever its clients do while nothing is taken from it."""

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import ClassVar

import pytest

from birnn_native.front import Event, News, Order, Room, command_of
from tests.native.front_serving import (
    ASK,
    CHAT,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    Client,
    Front,
    frame,
    front,
    head,
    message,
)

KIB, MIB = 1 << 10, 1 << 20
CANCEL = frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big"))[9:]


def reset(stream: int) -> bytes:
    """The end of a call whose client has lost interest."""
    return frame(RST_STREAM, 0, stream, CANCEL)


def is_answered(server: Front, client: Client, stream: int, reply: bytes = b"here") -> None:
    """A call gets its reply, and is over."""
    known, closed = server.count(News.MESSAGE), server.count(News.CLOSED)
    client.socket.sendall(head(stream) + message(stream, 10))
    server.until(lambda _: server.count(News.MESSAGE) > known)
    (id_,) = (event[0] for event in server.events[-2:] if event[1] & News.MESSAGE)
    server.front.send(command_of(id_, Order.REPLY, message=reply))
    assert client.status(stream)["grpc-status"] == "0"
    server.until(lambda _: server.count(News.CLOSED) > closed)


def test_messages_count_until_they_were_taken_though_their_callers_leave() -> None:
    with front(unread=MIB) as server:
        clients = [Client(server.port) for _ in range(4)]
        for client in clients:
            for stream in range(1, 101, 2):
                client.socket.sendall(head(stream) + message(stream, 60_000) + reset(stream))
            client.ping()
        server.take_all()
        held = sum(len(event[5]) for event in server.events)
        assert 3 * MIB // 4 - 70_000 < held < 3 * MIB // 4
        assert server.count(News.OPENED) == server.count(News.CLOSED)
        assert server.refused(Room.UNREAD) == 200 - held // 60_000
        is_answered(server, clients[0], 101)


def test_calls_count_until_their_end_was_taken() -> None:
    with front(calls=100) as server:
        client = Client(server.port)
        for stream in range(1, 1001, 2):
            client.socket.sendall(head(stream, **{":path": CHAT}))
            client.ping()
            client.socket.sendall(reset(stream))
        client.ping()
        server.take_all()
        assert server.count(News.OPENED) == server.count(News.CLOSED) == 75
        assert server.refused(Room.CALLS) == 425
        is_answered(server, client, 1001)


def test_connections_count_until_their_end_was_taken() -> None:
    with front(connections=8) as server:
        refused = 0
        for _ in range(50):
            try:
                client = Client(server.port)
                client.socket.sendall(head(1))
                client.ping()
            except (AssertionError, ConnectionError):
                refused += 1
            client.socket.close()
        server.until(lambda _: server.count(News.DISCONNECTED) == 6)
        assert server.count(News.CONNECTED) == 6
        assert refused == server.refused(Room.CONNECTIONS) == 44
        is_answered(server, Client(server.port), 1)


def test_small_messages_of_streams_count_as_what_they_take() -> None:
    """An empty message has five bytes on the wire, and takes more than that until it was taken."""
    with front(unread=MIB) as server:
        client = Client(server.port)
        for stream in range(1, 1001, 2):
            client.socket.sendall(head(stream, **{":path": CHAT}) + frame(DATA, 0, stream, bytes(5) * 32))
        client.ping()
        server.take_all()
        assert server.count(News.MESSAGE) < 5000
        assert server.refused(Room.UNREAD) > 300


def test_calls_beyond_a_limit_are_refused_with_the_trailers_that_were_given() -> None:
    with front(calls=1) as server:
        client = Client(server.port)
        client.socket.sendall(head(1) + head(3))
        assert client.status(3)["grpc-message"] == "no call"
    with front(unread=4 * KIB) as server:
        client = Client(server.port)
        client.socket.sendall(head(1) + head(3))
        fields = client.status(3)
        assert (fields["grpc-status"], fields["grpc-message"], fields["retry"]) == ("8", "no memory", "soon")


def test_connections_end_whose_refusals_are_too_many_to_be_kept() -> None:
    reply = bytes(64 * MIB)
    with front(unread=64 * KIB) as server:
        clients = []
        for number in range(6):
            clients.append(client := Client(server.port))
            client.socket.sendall(head(1) + message(1, 10))
            server.until(partial(has, News.MESSAGE, number + 1))
            (id_,) = (event[0] for event in server.events[-2:] if event[1] & News.MESSAGE)
            # Its client does not read it, and so no refusals either.
            server.front.send(command_of(id_, Order.REPLY, message=reply))
        stream = 3
        while not server.count(News.DISCONNECTED):
            for client in clients:
                with suppress(ConnectionError):
                    client.socket.sendall(b"".join(head(stream + 2 * number) for number in range(50)))
            stream += 100
            server.take_all()
        for client in clients:
            client.socket.close()
        server.until(lambda _: server.count(News.DISCONNECTED) == 6)
        assert server.refused(Room.UNREAD) > 4000
        is_answered(server, Client(server.port), 1)


def has(news: int, count: int, events: list[Event]) -> bool:
    return sum(bool(event[1] & news) for event in events) == count


class _Usage(ctypes.Structure):
    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "rest", "keep")
    ]


def in_use() -> int:
    """Bytes that malloc has given out in this process."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("only glibc says how much memory is in use")
    ask.restype = _Usage
    usage = ask()
    return int(usage.uordblks) + int(usage.hblkhd)


def test_connections_keep_nothing_of_large_replies() -> None:
    with front() as server:
        clients = [Client(server.port) for _ in range(70)]
        for client in clients:
            is_answered(server, client, 1)
        before = in_use()
        reply = bytes(MIB)
        for client in clients:
            is_answered(server, client, 3, reply)
        assert in_use() - before < 70 * 16 * KIB


def test_refused_calls_keep_nothing_of_what_came_for_them() -> None:
    """Also where their client does not read, so that they cannot end."""
    reply = bytes(64 * MIB)
    with front(unread=4 * MIB) as server:
        clients = [Client(server.port) for _ in range(4)]
        for number, client in enumerate(clients):
            client.socket.sendall(head(1) + message(1, 10))
            server.until(partial(has, News.MESSAGE, number + 1))
            (id_,) = (event[0] for event in server.events[-2:] if event[1] & News.MESSAGE)
            server.front.send(command_of(id_, Order.REPLY, message=reply))
        before = in_use()
        part = bytes(1) + (60_000).to_bytes(4, "big") + bytes(9_000)
        for batch in range(20):
            for stream in range(3 + 20 * batch, 23 + 20 * batch, 2):
                parts = frame(DATA, 0, stream, part) * 6
                clients[batch % 4].socket.sendall(head(stream, **{":path": CHAT, "grpc-timeout": "100m"}) + parts)
            server.until(partial(has, News.CLOSED, 10 * (batch + 1)))
        assert in_use() - before < 3 * MIB


def test_nothing_comes_after_the_end_of_a_call_was_ordered() -> None:
    with front() as server:
        client = Client(server.port, window=0)
        opened: list[int] = []
        for stream, path in ((1, ASK), (3, CHAT)):
            client.socket.sendall(head(stream, **{":path": path}))
            server.until(lambda _: server.count(News.OPENED) > len(opened))
            opened.append(server.events[-1][0])
        for id_ in opened:
            server.front.send(command_of(id_, Order.REPLY, message=b"no window for it"))
        for stream in (1, 3):
            assert client.read_until(HEADERS)[2] == stream  # its beginning
        before = len(server.events)
        for stream in (1, 3):
            client.socket.sendall(frame(DATA, 0, stream, bytes(3)) + frame(DATA, END_STREAM, stream, b""))
        client.ping()
        server.take_all()
        assert server.events[before:] == []
        client.socket.close()
        server.until(lambda _: server.count(News.DISCONNECTED) == 1)
        assert [event[1] for event in server.events[before:]] == [News.CLOSED, News.CLOSED, News.DISCONNECTED]


@contextmanager
def soft_limit(kind: int, value: int) -> Iterator[None]:
    """A lower limit of this process."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def test_connections_are_accepted_again_once_there_are_descriptors() -> None:
    with front() as server:
        clients = [Client(server.port), Client(server.port)]
        for client in clients:
            client.ping()
        waiting = Client(None)
        with soft_limit(resource.RLIMIT_NOFILE, waiting.socket.fileno() + 1):
            waiting.connect(server.port)
            is_answered(server, clients[0], 1)
        waiting.ping()
        is_answered(server, waiting, 1)


def test_a_system_that_fails_is_told_and_the_front_end_can_be_closed() -> None:
    def polls() -> set[int]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                    found.add(int(name))
            except OSError:
                continue
        return found

    known = polls()
    with front() as server:
        (poll,) = polls() - known
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, poll)
        os.close(nothing)
        # It may sleep in what was there before.
        server.front.send(command_of(1 << 32 | 1, Order.TOOK))
        server.until(lambda _: server.count(News.FAILED) == 1)
        assert b"epoll_wait" in server.events[-1][6]


SHORT_OF_MEMORY = """
import resource, struct
from birnn_native.front import Event, News, Order, command_of
from tests.native.front_serving import Client, DATA, frame, front, head
with front(message=1 << 31, unread=1 << 20) as server:
    client, other = Client(server.port), Client(server.port)
    client.socket.sendall(head(1) + frame(DATA, 0, 1, struct.pack("!BI", 0, 1 << 31)))
    server.until(lambda _: server.count(News.ANNOUNCED) == 1)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), -1))
    server.front.send(command_of(server.events[-1][0], Order.ADMIT))
    assert client.status(1)["grpc-message"] == "no memory"
    server.until(lambda _: server.count(News.CLOSED) == 1)
    other.ping()
"""


def test_a_message_that_there_is_no_memory_for_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


TOO_SHORT_TO_TAKE = """
import resource
from birnn_native.front import News
from tests.native.front_serving import Client, front, head, message
with front(unread=16 << 20) as server:
    client = Client(server.port)
    for stream in range(1, 101, 2):
        client.socket.sendall(head(stream) + message(stream, 60_000))
    client.ping()
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    # Memory that was freed may be there still. It is taken, too.
    held = []
    resource.setrlimit(resource.RLIMIT_AS, (size, -1))
    try:
        while True:
            held.append(bytes(100_000))
    except MemoryError:
        pass
    try:
        server.front.take()
    except MemoryError:
        short = True
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert short
    server.take_all()
    assert server.count(News.OPENED) == 50
    assert sum(len(event[5]) for event in server.events) == 50 * 60_000
"""


def test_events_stay_until_there_is_memory_for_them() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_SHORT_TO_TAKE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_reply_arrives_whole_though_its_caller_goes_on_sending() -> None:
    """The connection must not be closed while it has something unread: the rest of the reply would be lost."""
    reply = bytes(MIB)
    with front() as server:
        client = Client(server.port)
        client.socket.sendall(head(1) + message(1, 10))
        server.until(lambda _: server.count(News.MESSAGE) == 1)
        (id_,) = (event[0] for event in server.events[-2:] if event[1] & News.MESSAGE)
        server.front.send(command_of(id_, Order.REPLY, message=reply) + command_of(0, Order.FINISH))
        # All of it is with the system, which still has to deliver it.
        server.until(lambda _: server.count(News.CLOSED) == 1)
        for _ in range(20):
            client.socket.sendall(frame(PING, 0, 0, bytes(8)))
            time.sleep(0.01)
        assert client.status(1)["grpc-status"] == "0"
        client.socket.close()
        server.until(lambda _: server.count(News.DISCONNECTED) == 1)
