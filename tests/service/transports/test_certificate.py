import asyncio
import errno
import logging
import ssl
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from cryptography import x509

from birnn_service.errors import StartupError
from birnn_service.transports import certificate_name
from birnn_service.transports.certificate import Certificate
from birnn_service.transports.grpc_call import GrpcCall
from birnn_service.transports.http_message import HttpLimits, HttpReply, HttpRequest
from birnn_service.transports.http_server import HttpServer
from birnn_service.transports.socket_address import SocketAddress
from tests.certificates import Authority, Mount, Pair, connected, held, openssl, shown
from tests.e2e.server_process import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> list[Pair]:
    return [authority.issue("first"), authority.issue("second")]


async def name(request: HttpRequest) -> HttpReply:
    return HttpReply(200, (request.certificate_name.encode(),), "text/plain")


class Serving:
    """Both servers, with a certificate."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate

    async def __aenter__(self) -> tuple[int, int]:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> bytes:
            return GrpcCall(context, cast(Any, None), cast(Any, None)).certificate_name.encode()

        self._grpc = grpc.aio.server()
        handlers = {"name": grpc.stream_unary_rpc_method_handler(handle)}
        self._grpc.add_registered_method_handlers("test", handlers)
        port = self._grpc.add_secure_port("127.0.0.1:0", self._certificate.for_grpc())
        await self._grpc.start()
        listener = SocketAddress("127.0.0.1", 0, "HTTP").listen()
        self._http = HttpServer(name, HttpLimits(body_bytes=1 << 20))
        await self._http.listen(listener, self._certificate.for_http())
        return port, listener.getsockname()[1]

    async def __aexit__(self, *error: object) -> None:
        await self._grpc.stop(None)
        await self._http.close(0.2)


async def see(ports: tuple[int, int], ca: Path) -> list[bytes]:
    """What both ports show."""
    return [await asyncio.to_thread(shown, port, ca) for port in ports]


async def test_new_connections_see_a_new_certificate(authority: Authority, pairs: list[Pair], tmp_path: Path) -> None:
    first, second = pairs
    mount = Mount(tmp_path / "mount", first)
    async with Serving(Certificate(mount.pair.cert, mount.pair.key)) as ports:
        assert await see(ports, authority.cert) == 2 * [held(first)]
        mount.swap(second)
        assert await see(ports, authority.cert) == 2 * [held(second)]
        mount.swap(first)
        assert await see(ports, authority.cert) == 2 * [held(first)]


async def test_what_does_not_go_together_is_refused_and_told_once(
    authority: Authority, pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "birnn_service")
    first, second = pairs
    pair = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    pair.cert.write_bytes(first.cert.read_bytes())
    pair.key.write_bytes(first.key.read_bytes())
    async with Serving(Certificate(pair.cert, pair.key)) as ports:
        for content in (second.cert.read_bytes(), second.cert.read_bytes()[:100]):
            caplog.clear()
            pair.cert.write_bytes(content)
            for _ in range(2):
                assert await see(ports, authority.cert) == 2 * [held(first)]
            (record,) = caplog.records
            assert record.levelno == logging.ERROR
            assert str(pair.cert) in record.getMessage()
        caplog.clear()
        pair.cert.unlink()
        assert await see(ports, authority.cert) == 2 * [held(first)]
        assert len(caplog.records) == 1
        pair.cert.write_bytes(second.cert.read_bytes())
        pair.key.write_bytes(second.key.read_bytes())
        assert await see(ports, authority.cert) == 2 * [held(second)]
        assert "new certificate" in caplog.records[-1].getMessage()


async def test_files_that_could_not_be_read_for_a_moment_are_used_after_it(
    authority: Authority, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may have no descriptor left just then, and nobody would write the files again."""
    mount = Mount(tmp_path / "mount", pairs[0])
    certificate = Certificate(mount.pair.cert, mount.pair.key)

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with Serving(certificate) as ports:
        mount.swap(pairs[1])
        with monkeypatch.context() as patched:
            patched.setattr(ssl.SSLContext, "load_cert_chain", fails)
            assert await see(ports, authority.cert) == 2 * [held(pairs[0])]
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while await see(ports, authority.cert) != 2 * [held(pairs[1])]:
            assert asyncio.get_running_loop().time() < end


@pytest.mark.parametrize(
    ("subject", "names", "expected"),
    [
        ("/CN=Gräfin", "", "Gräfin"),
        ("/CN=common", "DNS:lab.example,DNS:other.example", "lab.example"),
        ("/CN=common", "DNS:lab.example,URI:spiffe://example.org/lab", "spiffe://example.org/lab"),
        ("/CN=common", "IP:192.0.2.1,email:lab@example.org", "common"),
        ("/O=nobody", "IP:192.0.2.1", ""),
        ("/O=nobody", "", ""),
        ("/CN=one/CN=two", "", "one"),
        # An alternative name of a kind that cannot be read (an ediPartyName) could hide others.
        ("/CN=common", "DER:30:07:A5:05:A1:03:0C:01:78", ""),
    ],
)
async def test_a_verified_caller_has_a_name(
    authority: Authority, pairs: list[Pair], subject: str, names: str, expected: str
) -> None:
    caller = authority.issue("caller", subject, names)
    async with Serving(Certificate(pairs[0].cert, pairs[0].key, authority.cert)) as ports:
        credentials = grpc.ssl_channel_credentials(
            *(path.read_bytes() for path in (authority.cert, caller.key, caller.cert))
        )
        async with grpc.aio.secure_channel(f"127.0.0.1:{ports[0]}", credentials) as channel:
            assert (await channel.stream_unary("/test/name")([b""])).decode() == expected
        context = ssl.create_default_context(cafile=authority.cert)
        context.load_cert_chain(caller.cert, caller.key)
        assert await ask(ports[1], context) == expected


async def test_a_certificate_that_expires_names_nobody_on_open_connections_either(
    authority: Authority, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = authority.issue("lasting")
    end = x509.load_pem_x509_certificate(caller.cert.read_bytes()).not_valid_after_utc.timestamp()
    now = end - 1
    monkeypatch.setattr(certificate_name, "time", SimpleNamespace(time=lambda: now))
    async with Serving(Certificate(pairs[0].cert, pairs[0].key, authority.cert)) as ports:
        files = (path.read_bytes() for path in (authority.cert, caller.key, caller.cert))
        context = ssl.create_default_context(cafile=authority.cert)
        context.load_cert_chain(caller.cert, caller.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[1], ssl=context, server_hostname="localhost")

        async def over_http() -> bytes:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            return await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))

        async with grpc.aio.secure_channel(f"127.0.0.1:{ports[0]}", grpc.ssl_channel_credentials(*files)) as channel:
            over_grpc = channel.stream_unary("/test/name")
            # The first DNS name among the alternatives.
            assert (await over_http(), await over_grpc([b""])) == (b"localhost", b"localhost")
            now = end + 1
            assert (await over_http(), await over_grpc([b""])) == (b"", b"")
        writer.close()


async def test_connections_count_and_are_timed_before_they_shake_hands(authority: Authority, pairs: list[Pair]) -> None:
    server = HttpServer(name, HttpLimits(body_bytes=1 << 20, connections=8, head_seconds=2.0))
    listener = SocketAddress("127.0.0.1", 0, "HTTP").listen()
    await server.listen(listener, Certificate(pairs[0].cert, pairs[0].key).for_http())
    address = listener.getsockname()
    silent = [await asyncio.open_connection(*address) for _ in range(20)]
    # Beyond three quarters of all connections, those of one address are closed at once.
    closed = [asyncio.create_task(reader.read()) for reader, _ in silent]
    for done, one in enumerate(asyncio.as_completed(closed), 1):
        with suppress(ConnectionError):
            assert await one == b""
        if done == 14:
            assert server.connections == 6
            context = ssl.create_default_context(cafile=authority.cert)
            options: dict[str, Any] = {"ssl": context, "server_hostname": "localhost"}
            _, writer = await asyncio.open_connection(*address, **options, local_addr=("127.0.0.2", 0))
            writer.close()
    # The others are when their time is over.
    assert server.connections == 0
    for _, writer in silent:
        writer.close()
    await server.close(1.0)


async def test_where_nobody_is_asked_nobody_has_a_name(authority: Authority, pairs: list[Pair]) -> None:
    async with Serving(Certificate(pairs[0].cert, pairs[0].key)) as ports:
        credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{ports[0]}", credentials) as channel:
            assert await channel.stream_unary("/test/name")([b""]) == b""
        assert await ask(ports[1], ssl.create_default_context(cafile=authority.cert)) == ""


async def test_callers_without_a_certificate_of_the_authority_are_refused(
    authority: Authority, pairs: list[Pair], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "other").issue("stranger")
    async with Serving(Certificate(pairs[0].cert, pairs[0].key, authority.cert)) as ports:
        for own in (None, stranger):
            context = ssl.create_default_context(cafile=authority.cert)
            if own is not None:
                context.load_cert_chain(own.cert, own.key)
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await ask(ports[1], context)
            chain = () if own is None else (own.key.read_bytes(), own.cert.read_bytes())
            credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes(), *chain)
            async with grpc.aio.secure_channel(f"127.0.0.1:{ports[0]}", credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.stream_unary("/test/name")([b""])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(
    authority: Authority, pairs: list[Pair], version: ssl.TLSVersion, recwarn: pytest.WarningsRecorder
) -> None:
    context = ssl.create_default_context(cafile=authority.cert)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    async with Serving(Certificate(pairs[0].cert, pairs[0].key)) as ports:
        for port in ports:
            with pytest.raises(OSError):  # noqa: PT011
                await ask(port, context)


async def test_a_reply_reaches_a_caller_who_still_sends(authority: Authority, pairs: list[Pair]) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000001\r\n\r\n" + bytes(8_000_000)

    def send() -> bytes:
        with connected(port, authority.cert) as connection:
            connection.sendall(request)
            return connection.recv(12)

    async with Serving(Certificate(pairs[0].cert, pairs[0].key)) as (_, port):
        assert await asyncio.to_thread(send) == b"HTTP/1.1 200"


@pytest.fixture
def unusable(pairs: list[Pair], tmp_path: Path) -> dict[str, tuple[Path, Path, Path | None]]:
    (tmp_path / "empty.pem").touch()
    openssl("ec", "-in", pairs[0].key, "-aes128", "-passout", "pass:secret", "-out", tmp_path / "locked.key")
    first, second = pairs
    return {
        "missing": (tmp_path / "none.pem", first.key, None),
        "mismatched": (first.cert, second.key, None),
        "locked": (first.cert, tmp_path / "locked.key", None),
        "no authority": (first.cert, first.key, tmp_path / "empty.pem"),
    }


@pytest.mark.parametrize("case", ["missing", "mismatched", "locked", "no authority"])
def test_what_cannot_be_used_is_an_error_at_the_start(
    case: str, unusable: dict[str, tuple[Path, Path, Path | None]]
) -> None:
    with pytest.raises(StartupError, match="--tls-cert"):
        Certificate(*unusable[case])


async def ask(port: int, context: ssl.SSLContext) -> str:
    """The body of the reply to a request."""
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        return (await reader.read()).decode()
    finally:
        writer.transport.abort()
