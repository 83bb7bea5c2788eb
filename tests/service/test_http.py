"""The HTTP server under callers who send nothing, too much, too slowly, or do not read."""

import http.client
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from birnn_service import http as served
from birnn_service.access import Access
from birnn_service.errors import StartupError
from birnn_service.http import MAX_CONNECTIONS, HttpServer
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.token_file import Grant, Right, digest_of, write_tokens
from birnn_service.transports.certificate import Certificate
from tests.certificates import Authority

OPEN = Access(Settings())


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge("birnn_large", "More than socket buffers hold.", ["number"], registry=registry)
    for number in range(50_000):
        gauge.labels(f"{number:0100}").set(number)
    return registry


@pytest.fixture(autouse=True)
def patient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give exchanges time, however slow the machine is."""
    monkeypatch.setattr(served, "EXCHANGE_SECONDS", 60.0)


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    server = HttpServer("127.0.0.1", 0, registry, OPEN, live=lambda: True, ready=lambda: False)
    server.start()
    yield server.port
    server.stop()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def status(port: int, path: str, method: str = "GET") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection without a reply."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_with_tokens_metrics_need_their_right_and_probes_none(registry: CollectorRegistry, tmp_path: Path) -> None:
    holders = [
        Grant(name=right, sha256=digest_of(f"{right} token"), rights=(right,))
        for right in (Right.ENCODE, Right.METRICS)
    ]
    file = tmp_path / "tokens"
    file.write_bytes(write_tokens(holders))
    access = Access(load_settings({"tokens": str(file)}))
    server = HttpServer("127.0.0.1", 0, registry, access, live=lambda: True, ready=lambda: True)
    server.start()

    def ask(path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply

    try:
        assert ask("/healthz").status == ask("/readyz").status == 200
        refused = ask("/metrics")
        assert (refused.status, refused.reason) == (401, "Unauthorized")
        assert refused.getheader("WWW-Authenticate") == "Bearer"
        assert ask("/metrics", Authorization="Bearer encode token").status == 403
        assert ask("/metrics", Authorization="Bearer metrics token").status == 200
    finally:
        server.stop()


def test_a_token_that_comes_twice_or_in_the_address_is_none(registry: CollectorRegistry, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(write_tokens([Grant(name="scrape", sha256=digest_of("secret"), rights=(Right.METRICS,))]))
    access = Access(load_settings({"tokens": str(file)}))
    server = HttpServer("127.0.0.1", 0, registry, access, live=lambda: True, ready=lambda: True)
    server.start()

    def ask(target: str, *fields: str) -> bytes:
        with connect(server.port) as connection:
            connection.sendall("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *fields, "", ""]).encode())
            return connection.makefile("rb").readline()

    right = "Authorization: Bearer secret"
    try:
        assert b"200" in ask("/metrics", right)
        assert b"401" in ask("/metrics", right, right)
        assert b"401" in ask("/metrics", right, "authorization: Bearer other")
        assert b"401" in ask("/metrics?access_token=secret&authorization=Bearer+secret")
        assert b"401" in ask("/metrics", "Authorization: Bearer\tsecret")
        assert b"200" in ask("/metrics", "AUTHORIZATION: bEARER   secret  ")
    finally:
        server.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exchanges take as long as they do on a machine that is busy."""
    monkeypatch.setattr(served, "EXCHANGE_SECONDS", 300.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(registry: CollectorRegistry, authority: Authority, patient: None) -> Iterator[int]:
    """The port of a server with TLS, whose other ports ask callers for certificates."""
    pair = authority.issue("server")
    tls = Certificate(pair.cert, pair.key, authority.cert).for_metrics()
    server = HttpServer("127.0.0.1", 0, registry, OPEN, live=lambda: True, ready=lambda: False, tls=tls)
    server.start()
    yield server.port
    server.stop()


def secure_status(port: int, authority: Authority, path: str) -> tuple[int, int]:
    """Status, and bytes of the reply."""
    context = ssl.create_default_context(cafile=authority.cert)
    connection = http.client.HTTPSConnection("localhost", port, timeout=120, context=context)
    connection.request("GET", path)
    reply = connection.getresponse()
    size = len(reply.read())
    connection.close()
    return reply.status, size


def test_with_tls_probes_and_scrapes_need_no_certificate(secure: int, authority: Authority) -> None:
    assert secure_status(secure, authority, "/healthz")[0] == 200
    assert secure_status(secure, authority, "/readyz")[0] == 503
    status, size = secure_status(secure, authority, "/metrics")
    assert status == 200
    assert size > 5_000_000
    with connect(secure) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in connection.makefile("rb").read()
    assert secure_status(secure, authority, "/healthz")[0] == 200


def test_with_tls_probes_get_through_while_others_do_not_shake_hands(secure: int, authority: Authority) -> None:
    files = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(secure)) for _ in range(3 * MAX_CONNECTIONS)]
        for connection in silent[::2]:
            connection.sendall(b"\x16\x03\x01")
        assert secure_status(secure, authority, "/healthz")[0] == 200
        assert all(map(is_closed, silent[: 2 * MAX_CONNECTIONS]))
        # Our ends, and at most so many of theirs.
        assert len(os.listdir("/proc/self/fd")) - files <= len(silent) + MAX_CONNECTIONS + 8


def test_probes_and_what_is_not_there(port: int) -> None:
    assert status(port, "/healthz") == 200
    assert status(port, "/readyz?verbose") == 503
    assert status(port, "/") == 404
    assert status(port, "/healthz", "POST") == 405
    assert status(port, "/healthz", "HEAD") == 200


@pytest.mark.usefixtures("patient")
def test_a_scrape_gets_everything_in_the_format_and_compression_that_it_asks_for(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/metrics?name[]=birnn_large", headers={"Accept": "application/openmetrics-text"})
    reply = connection.getresponse()
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert reply.read().endswith(b"# EOF\n")
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    reply = connection.getresponse()
    assert reply.headers["Content-Encoding"] == "gzip"
    assert reply.read().startswith(b"\x1f\x8b")


def test_probes_get_through_while_others_hold_connections_and_send_nothing_or_a_byte_at_a_time(port: int) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(MAX_CONNECTIONS)]
        slow = [stack.enter_context(connect(port)) for _ in range(2 * MAX_CONNECTIONS)]
        for connection in slow:
            connection.send(b"GET /h")
        assert status(port, "/healthz") == 200
        assert all(map(is_closed, silent))


def test_as_many_connections_and_threads_as_allowed_and_no_more(port: int) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        for _ in range(4 * MAX_CONNECTIONS):
            stack.enter_context(connect(port))
        assert status(port, "/healthz") == 200
        assert threading.active_count() == threads
        # Our ends, and at most so many of theirs.
        assert len(os.listdir("/proc/self/fd")) - files <= 5 * MAX_CONNECTIONS


def test_those_who_do_not_read_their_metrics_make_room_for_probes(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(2 * MAX_CONNECTIONS):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert status(port, "/healthz") == 200


def trickle(connection: socket.socket) -> None:
    """Send a byte at a time, until the other side has enough."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.01)


def test_an_exchange_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(served, "EXCHANGE_SECONDS", 0.1)
    with connect(port) as silent, connect(port) as endless:
        assert is_closed(silent)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            trickle(endless)


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"GET /healthz\r\n\r\n", b"HTTP/1.1 400"),
        (b"\x16\x03\x01 hello\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"HTTP/1.1 400"),
        (b"GET /" + b"x" * served.MAX_HEAD_BYTES, b"HTTP/1.1 431"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200"),
    ],
)
def test_what_is_no_request_is_told_so(port: int, request_bytes: bytes, answer: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(len(answer)) == answer


def test_a_port_that_is_taken_is_an_error_that_names_the_flag(port: int, registry: CollectorRegistry) -> None:
    with pytest.raises(StartupError, match="--metrics-port"):
        HttpServer("127.0.0.1", port, registry, OPEN, live=lambda: True, ready=lambda: True)


def test_an_address_of_ipv6_that_cannot_be_had_is_told_from_its_port(registry: CollectorRegistry) -> None:
    with pytest.raises(StartupError, match=r"cannot listen on \[2001:db8::1\]:0 for metrics: .* --metrics-port"):
        HttpServer("2001:db8::1", 0, registry, OPEN, live=lambda: True, ready=lambda: True)


def exhaust() -> None:
    """Serve, use up all descriptors, and say so; another process looks whether probes get through."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), OPEN, live=lambda: True, ready=lambda: False)
    server.start()
    held = []
    while True:
        try:
            held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


def test_probes_are_answered_where_no_descriptor_is_left_again_and_again() -> None:
    code = "from tests.service.test_http import exhaust; exhaust()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(3):
            with ExitStack() as stack:
                for _ in range(MAX_CONNECTIONS):
                    stack.enter_context(connect(port))
                for _ in range(10):
                    assert status(port, "/healthz") == 200
                    assert status(port, "/readyz") == 503
        process.communicate()
