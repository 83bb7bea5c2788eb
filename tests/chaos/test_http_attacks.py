"""What callers may do to a connection of HTTP: each is refused or cut off, and other callers are served meanwhile."""

import gzip
import itertools
import json
import re
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.chaos.http_calls import asking, post, told
from tests.chaos.outcomes import Outcomes, attack
from tests.chaos.probes import probing
from tests.chaos.processes import peak
from tests.e2e.server_process import MODELS, ServerProcess, running, until

MIB = 1 << 20
# One caller has three quarters of the connections.
CONNECTIONS = 64
LIMITS = {
    "--max-head-seconds": 3,
    "--max-request-seconds": 3,
    "--max-reply-seconds": 3,
    "--max-idle-seconds": 3,
    "--max-connections": CONNECTIONS,
    "--max-message-mib": 4,
}
HEAD, TRANSFER = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + TRANSFER
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
# What an attack may take beside what the server takes anyway.
GROWTH_MIB = 384


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    arguments = (str(part) for item in LIMITS.items() for part in item)
    with running(MODELS, "--http-port", "0", *arguments) as server:
        yield server


@contextmanager
def attacking(server: ServerProcess, name: str) -> Iterator[Outcomes]:
    """Probe a server, and call it from another address, while it is attacked."""
    before = peak(server)
    with attack(f"HTTP: {name}") as outcomes:
        with probing(server) as probes, asking(server) as other:
            yield outcomes
        grown = peak(server) - before
        outcomes.note = (
            f"{grown:.0f} MiB more, {other.answered} other calls answered, slowest probe {probes.slowest:.2f} s"
        )
    outcomes.assert_unharmed()
    other.assert_served()
    probes.assert_lively()
    assert grown < GROWTH_MIB
    assert server.metric("birnn_unexpected_errors_total") == 0


def call(strings: list[str]) -> bytes:
    return json.dumps({"model": "smiles-small", "input": strings}).encode()


@dataclass(frozen=True)
class Attack:
    """What callers send.

    Attributes:
        callers: How many do so at the same time.
        start: At first.
        again: Then without end; nothing where it is empty.
        pause: Seconds after each piece.
        expected: Statuses that they may get; where there are none, the connection is closed without a word.
    """

    callers: int
    start: Sequence[bytes]
    again: bytes = b""
    pause: float = 0.0
    expected: Sequence[int] = (400,)

    def pieces(self) -> Iterator[bytes]:
        """What one of them sends."""
        return itertools.chain(self.start, itertools.repeat(self.again) if self.again else ())


PACKED = b"Content-Encoding: gzip"
ATTACKS = {
    "nothing is sent": Attack(40, [], expected=[]),
    "heads that never end": Attack(40, [HEAD], b"a: b\r\n", 0.1, [408]),
    "bodies that never end": Attack(40, [HEAD + b"Content-Length: 1000000\r\n\r\n"], b" ", 0.1, [408]),
    "bodies of which nothing comes": Attack(40, [HEAD + b"Content-Length: 10\r\n\r\n"], expected=[408]),
    "10,000 headers": Attack(20, [HEAD, *(b"a%d: b\r\n" % number for number in range(10_000))], expected=[431]),
    "a header of 1 MiB": Attack(20, [HEAD, b"a: " + b"x" * MIB + b"\r\n\r\n"], expected=[431]),
    "a target of 1 MiB": Attack(20, [b"GET /" + b"x" * MIB + b" HTTP/1.1\r\n\r\n"], expected=[431]),
    "endless chunks": Attack(8, [CHUNKED], b"10000\r\n" + b"x" * 65_536 + b"\r\n", expected=[413]),
    "endless chunks of a byte": Attack(8, [CHUNKED], b"1\r\nx\r\n" * 1000),
    "an endless extension of a chunk": Attack(8, [CHUNKED + b"1;"], b"x" * MIB, expected=[400, 431]),
    "endless trailers": Attack(8, [CHUNKED + b"1\r\nx\r\n0\r\n"], b"a: b\r\n" * 1000, expected=[400, 431]),
    "a body too large": Attack(8, [HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 40)], b"x" * MIB, expected=[413]),
    "256 MiB of zeros, packed": Attack(8, [post(gzip.compress(bytes(256 * MIB)), PACKED)], expected=[413]),
    "1 M empty strings, packed": Attack(8, [post(gzip.compress(call([""] * (MIB - 100))), PACKED)]),
    "4 M brackets": Attack(4, [post(b"[" * (4 * MIB - 100))]),
    "2 M numbers": Attack(4, [post(b'{"input":[' + b"1," * (2 * MIB - 100) + b"1]}")]),
    "a string of 4 MiB": Attack(4, [post(call(["C" * (4 * MIB - 100)]))]),
    "500,000 escapes": Attack(4, [post(call(['"' * 500_000]))]),
    "600,000 fields": Attack(4, [post(b"{" + b'"a":1,' * 600_000 + b'"a":1}')]),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_others_are_served(server: ServerProcess, name: str) -> None:
    planned = ATTACKS[name]
    seen: set[int] = set()
    with attacking(server, name) as outcomes, ThreadPoolExecutor(planned.callers) as threads:
        for answer in threads.map(lambda _: told(server, planned.pieces(), planned.pause), range(planned.callers)):
            found = {int(status) for status in STATUS.findall(answer)}
            # Who is cut off while sending may lose the reply.
            outcomes.count("refused" if found <= set(planned.expected) else "wrong")
            assert found <= set(planned.expected), answer[:500]
            seen |= found
    assert bool(seen) == bool(planned.expected)


def test_requests_sent_ahead_are_bounded(server: ServerProcess) -> None:
    with attacking(server, "100,000 requests sent ahead") as outcomes, ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda _: told(server, [GET * 1000] * 100), range(8)):
            found = STATUS.findall(answer)
            assert len(found) < 1000
            assert set(found) <= {b"200", b"400"}
            outcomes.count("refused")


def test_more_connections_than_there_may_be_are_refused(server: ServerProcess) -> None:
    count = 3 * CONNECTIONS
    name = f"{count} connections where {CONNECTIONS} are allowed"
    with attacking(server, name) as outcomes, ThreadPoolExecutor(count) as threads:
        for answer in threads.map(lambda _: told(server, []), range(count)):
            assert STATUS.findall(answer) in ([], [b"503"]), answer
            outcomes.count("refused")


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_who_does_not_read_is_cut_off(server: ServerProcess, binary: bool) -> None:
    strings = ["C" * (1 + number % 40) for number in range(8000)]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(strings)], "data": strings}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}}).encode()
    host, _, port = server.rest.removeprefix("http://").rpartition(":")
    before, count = server.logged("has not taken a reply"), 6
    with attacking(server, f"nobody reads replies of {'16 MiB of bytes' if binary else '50 MiB of JSON'}") as outcomes:
        connections = [socket.create_connection((host, int(port))) for _ in range(count)]
        for connection in connections:
            connection.sendall(post(body, path=b"/v2/models/smiles-small/infer"))
        until(lambda: server.logged("has not taken a reply") - before == count)
        for connection in connections:
            connection.close()
            outcomes.count("refused")


# Bytes that two servers in a row may understand differently: one of them sees a second request in what follows.
SMUGGLED = [
    b"Content-Length: 0\r\n" + TRANSFER + b"0\r\n\r\n",
    b"Content-Length: 4\r\nContent-Length: 0\r\n\r\n",
    b"Content-Length: 0, 0\r\n\r\n",
    b"Content-Length: +0\r\n\r\n",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 0x0\r\n\r\n",
    b"Content-Length: 18446744073709551616\r\n\r\n",
    b"Content-Length : 0\r\n\r\n",
    b"Content-Length:\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    TRANSFER + b"-0\r\n\r\n",
    TRANSFER + b"0x0\r\n\r\n",
    TRANSFER + b"10000000000000000\r\n\r\n",
    TRANSFER + b"0 \r\n\r\n",
    TRANSFER + b"1\r\nxx\r\n0\r\n\r\n",
    b"a: b\r\n Content-Length: 0\r\n\r\n",
    b"a: b\rContent-Length: 0\r\n\r\n",
    b"a: \0\r\n\r\n",
    b"a b: c\r\n\r\n",
    b": c\r\n\r\n",
]


def test_nothing_is_smuggled(server: ServerProcess) -> None:
    with attacking(server, "requests that hide another one") as outcomes:
        for hidden in SMUGGLED:
            answer = told(server, [HEAD + hidden + GET])
            assert {int(status) for status in STATUS.findall(answer)} <= {400, 501}, (hidden, answer)
            assert len(STATUS.findall(answer)) == 1, (hidden, answer)
            assert b'"object":"list"' not in answer
            outcomes.count("refused")


def test_other_protocols_are_declined(server: ServerProcess) -> None:
    upgrade = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings%b\r\nUpgrade: %b\r\n\r\n"
    with attacking(server, "offers of other protocols") as outcomes:
        for sent, expected in (
            (upgrade % (b"", b"h2c"), [b"200"]),
            (upgrade % (b"", b"h2c") + GET, [b"200", b"200"]),
            (upgrade % (b"", b"websocket"), [b"200"]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [b"400"]),
            (b"CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", [b"405"]),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), [b"400"]),
            (b"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: x\r\n\r\n", [b"404"]),
        ):
            # The server closes what is idle.
            assert STATUS.findall(told(server, [sent])) == expected, sent
            outcomes.count("answered" if expected[0] == b"200" else "refused")
