"""Calls over HTTP, good and bad: whole ones, and bytes that somebody sends who means harm."""

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import sleep
from typing import Any

from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess

# Callers are told apart by address, and attacks come from 127.0.0.1.
OTHER_CALLER = ("127.0.0.2", 0)
# What is kept of a long answer.
KEPT_BYTES = 1 << 16


def connect(server: ServerProcess, source: tuple[str, int] | None = None) -> http.client.HTTPConnection:
    """A connection that opens itself, and again where the server has closed it."""
    address = server.rest.removeprefix("http://")
    return http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS, source_address=source)


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/embeddings") -> bytes:
    """A request, after which the connection may be closed."""
    lines = (b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), b"Connection: close", *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def told(server: ServerProcess, pieces: Iterable[bytes], pause: float = 0.0) -> bytes:
    """What the server says until it closes the connection, or the start of it; pieces may be endless.

    Raises:
        TimeoutError: It says nothing more and keeps the connection open.
    """
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
        sender = threading.Thread(target=_send, args=(connection, pieces, pause), daemon=True)
        sender.start()
        answer = b""
        try:
            while piece := connection.recv(1 << 20):
                answer += piece[: KEPT_BYTES - len(answer)]
        except ConnectionError:  # closed with bytes that it did not read
            pass
        return answer


def _send(connection: socket.socket, pieces: Iterable[bytes], pause: float) -> None:
    try:
        for piece in pieces:
            connection.sendall(piece)
            sleep(pause)
    except OSError:  # closed meanwhile
        pass


@dataclass
class Asking:
    """How many calls of another caller were answered, and what became of the first that was not."""

    answered: int = 0
    failure: str = ""

    def assert_served(self) -> None:
        """All were answered."""
        assert not self.failure, self.failure
        assert self.answered > 0


@contextmanager
def asking(server: ServerProcess) -> Iterator[Asking]:
    """Have another caller ask for one embedding after another until the end of the block."""
    found, stop = Asking(), threading.Event()
    thread = threading.Thread(target=_ask, args=(server, found, stop))
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _ask(server: ServerProcess, found: Asking, stop: threading.Event) -> None:
    body = json.dumps({"model": "smiles-small", "input": "CCO"})
    last = False
    while not last:
        # Once more at the end, as probes do.
        last = stop.is_set()
        try:
            connection = connect(server, OTHER_CALLER)
            connection.request("POST", "/v1/embeddings", body)
            reply = connection.getresponse()
            assert (reply.status, len(reply.read()) > 1000) == (200, True), reply.status
            connection.close()
        except Exception as error:  # whatever it is, the thread must not end in silence
            found.failure = repr(error)
            return
        found.answered += 1


@dataclass
class Request:
    """A POST.

    Attributes:
        path: Where to.
        value: What its JSON holds.
        headers: Beside those that every request has.
        tail: What follows the JSON.
    """

    path: str
    value: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    tail: bytes = b""
