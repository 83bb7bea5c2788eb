import http.client
import json
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

import birnn
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.certificates import Authority, Mount, Pair, held, shown
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, failure, running, until
from tests.e2e.test_tokens import change

SMALL = "smiles-small"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / SMALL, folder / SMALL)
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def mutual(models: Path, authority: Authority) -> Iterator[ServerProcess]:
    """A server that asks callers for certificates."""
    pair = authority.issue("server")
    files = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tls-client-ca", str(authority.cert))
    # Beyond loopback, as far as the server can tell.
    with running(models, "--host", "0.0.0.0", "--http-port", "0", *files) as server:
        yield server


def ports(server: ServerProcess) -> list[int]:
    """Of gRPC and HTTP."""
    return [int(where.rpartition(":")[2]) for where in (server.address, server.rest)]


def embed(connection: http.client.HTTPSConnection) -> None:
    body = json.dumps({"model": SMALL, "input": ["CCO"]})
    connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    content = reply.read()
    assert reply.status == 200, content


class Callers:
    """Call one after the other, each in a thread of its own, until the end; every failure counts."""

    def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
        self.counts = [0] * len(calls)
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=pair) for pair in enumerate(calls)]

    def _run(self, number: int, call: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                call()
            except Exception as error:
                self.errors.append(error)
            self.counts[number] += 1

    def go_on(self) -> None:
        """Wait until each has begun and ended another call."""
        before = list(self.counts)
        until(lambda: all(now >= then + 2 for now, then in zip(self.counts, before, strict=True)))

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_certificates_are_replaced_without_losing_a_call(
    models: Path, authority: Authority, frontends: str, tmp_path: Path
) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    mount = Mount(tmp_path / "mount", first)
    files = ("--tls-cert", str(mount.pair.cert), "--tls-key", str(mount.pair.key))
    context = ssl.create_default_context(cafile=authority.cert)
    tls = birnn.Tls(ca=authority.cert)
    with running(models, "--http-port", "0", "--frontends", frontends, *files) as server:
        port, rest = ports(server)

        def client() -> birnn.Client:
            return birnn.Client(f"127.0.0.1:{port}", tls=tls, retry_for=0)

        def connection() -> http.client.HTTPSConnection:
            return http.client.HTTPSConnection("127.0.0.1", rest, timeout=PATIENCE_SECONDS, context=context)

        def call_anew() -> None:
            with client() as fresh:
                fresh.encode(["CCO"], SMALL)

        def embed_anew() -> None:
            with closing(connection()) as fresh:
                embed(fresh)

        with client() as kept, closing(connection()) as open_one:
            calls = [lambda: kept.encode(["CCO"], SMALL), call_anew, lambda: embed(open_one), embed_anew]
            with Callers(calls) as callers:
                callers.go_on()
                assert [shown(port, authority.cert) for port in ports(server)] == 2 * [held(first)]
                mount.swap(Pair(second.cert, first.key))
                callers.go_on()
                assert [shown(port, authority.cert) for port in ports(server)] == 2 * [held(first)]
                mount.swap(second)
                callers.go_on()
                assert [shown(port, authority.cert) for port in ports(server)] == 2 * [held(second)]
                callers.go_on()
            # Connections that nobody uses do not hold it up.
            server.terminate()
            assert server.ended() == 0
        assert callers.errors == []
        # Each process tells of each change once.
        assert 1 <= server.logged("goes on as it was") <= max(1, int(frontends))
        assert 1 <= server.logged("new connections get the new certificate") <= max(1, int(frontends))


def encode(address: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "birnn", "encode", "CCO", "--encoder", SMALL, "--address", address]
    return subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize(("frontends", "env"), [("1", {}), ("0", {"GRPC_VERBOSITY": "ERROR"})])
def test_connections_that_do_not_speak_tls_write_nothing_into_the_log(
    models: Path, authority: Authority, frontends: str, env: dict[str, str]
) -> None:
    pair = authority.issue("server")
    files = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with running(models, "--http-port", "0", "--frontends", frontends, *files, env=env) as server:
        lines = len(server.log)
        for port in (*ports(server), int(server.http.rpartition(":")[2])):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as connection, suppress(ConnectionError):
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    # Until the server has ended it.
                    while connection.recv(1 << 10):
                        pass
        assert server.log[lines:] == []


def test_the_command_says_who_it_is(mutual: ServerProcess, authority: Authority) -> None:
    caller, (port, _) = authority.issue("caller"), ports(mutual)
    files = ("--tls-ca", authority.cert, "--tls-cert", caller.cert, "--tls-key", caller.key)
    done = encode(f"127.0.0.1:{port}", *files)
    assert done.returncode == 0, done.stderr
    molecules = MODELS.parent / "examples" / "molecules.smi"
    command = [sys.executable, "-m", "birnn", "loadtest", "--address", f"127.0.0.1:{port}", "--encoder", SMALL]
    command += ["--file", str(molecules), "--in-flight", "2", "--duration", "0.5", "--warmup", "0", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr


def test_callers_without_what_the_server_asks_for_are_told_what_to_pass(
    mutual: ServerProcess, authority: Authority
) -> None:
    address = f"127.0.0.1:{ports(mutual)[0]}"
    for options in ((), ("--tls-ca", authority.cert)):
        done = encode(address, *options)
        assert done.returncode == 3
        assert "--tls-ca FILE" in done.stderr
        assert "--tls-cert" in done.stderr
    done = encode(address, "--tls")
    assert "not trusted" in done.stderr


def test_probes_and_metrics_have_tls_and_need_no_certificate(mutual: ServerProcess, authority: Authority) -> None:
    assert mutual.http.startswith("https://")
    assert mutual.get("/healthz")[0] == mutual.get("/readyz")[0] == mutual.get("/metrics")[0] == 200
    assert mutual.logged("everyone who reaches the metrics port can read /metrics") == 1
    seen = ssl.DER_cert_to_PEM_cert(shown(int(mutual.http.rpartition(":")[2]), authority.cert))
    end = x509.load_pem_x509_certificate(seen.encode()).not_valid_after_utc.timestamp()
    assert mutual.metric("birnn_certificate_not_after_seconds") == end


def test_callers_are_known_by_their_certificates_over_both_transports(
    mutual: ServerProcess, authority: Authority
) -> None:
    port, rest = ports(mutual)
    name = "spiffe://example.org/lab"
    pair = authority.issue("lab", names=f"DNS:lab.example,URI:{name}")
    tls = birnn.Tls(ca=authority.cert, cert=pair.cert, key=pair.key)
    with birnn.Client(f"127.0.0.1:{port}", tls=tls) as client:
        client.encode(["CCO"], SMALL)
    context = ssl.create_default_context(cafile=authority.cert)
    context.load_cert_chain(pair.cert, pair.key)
    with closing(http.client.HTTPSConnection("127.0.0.1", rest, timeout=PATIENCE_SECONDS, context=context)) as called:
        embed(called)
    until(lambda: mutual.metric("birnn_tenant_sequences_total", tenant=name) == 2)
    nameless = authority.issue("nameless", "/O=nobody", "IP:192.0.2.1")
    tls = birnn.Tls(ca=authority.cert, cert=nameless.cert, key=nameless.key)
    with (
        birnn.Client(f"127.0.0.1:{port}", tls=tls) as client,
        pytest.raises(birnn.EncodeError, match="URI or DNS name"),
    ):
        client.encode(["CCO"], SMALL)


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_with_tokens_certificates_have_the_rights_that_a_line_gives_them(
    models: Path, authority: Authority, frontends: str, tmp_path: Path
) -> None:
    path, server_pair = tmp_path / "tokens", authority.issue("guarded")
    secret = change(path, "add", "lab")
    change(path, "add", "batch", "--certificate", "spiffe://example.org/batch")
    change(path, "add", "mesh", "--certificate", "mesh.example", "--right", "encode", "--right", "gateway")
    scrape = change(path, "add", "prometheus", "--right", "metrics")
    batch = authority.issue("batch", names="URI:spiffe://example.org/batch")
    mesh, other = authority.issue("mesh", names="DNS:mesh.example"), authority.issue("other", names="DNS:batch")
    files = (
        "--tls-cert",
        str(server_pair.cert),
        "--tls-key",
        str(server_pair.key),
        "--tls-client-ca",
        str(authority.cert),
    )
    more = ("--tokens", str(path), "--caller-header", "x-birnn-caller", "--frontends", frontends)
    with running(models, *files, *more) as server:
        server.token = scrape

        def call(pair: Pair, **options: Any) -> None:
            tls = birnn.Tls(ca=authority.cert, cert=pair.cert, key=pair.key)
            with birnn.Client(server.address, tls=tls, retry_for=0, **options) as client:
                client.encode(["CCO"], SMALL)

        def refused(pair: Pair) -> bool:
            try:
                call(pair)
            except birnn.EncodeError as error:
                return "does not know your certificate" in str(error)
            return False

        call(batch)
        call(batch, token=secret)
        call(mesh, metadata={"x-birnn-caller": "alice"})
        call(batch, metadata={"x-birnn-caller": "alice"})
        assert refused(other)
        counted = {"batch": 2, "lab": 1, "alice": 1}
        until(lambda: counted == {name: server.metric("birnn_tenant_sequences_total", tenant=name) for name in counted})
        outgoing: queue.SimpleQueue[pb.EncodeStreamRequest | None] = queue.SimpleQueue()
        files_of_batch = (authority.cert, batch.key, batch.cert)
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files_of_batch))
        with grpc.secure_channel(server.address, credentials) as channel:
            stream = EncoderServiceStub(channel).EncodeStream(iter(outgoing.get, None), timeout=PATIENCE_SECONDS)

            def refused_on_stream() -> bool:
                outgoing.put(pb.EncodeStreamRequest(encode=pb.EncodeRequest(encoder=SMALL, sequences=[b"CCO"])))
                reply: pb.EncodeStreamResponse = next(stream)
                return "does not know your certificate" in reply.failure.message

            assert not refused_on_stream()
            change(path, "remove", "batch")
            until(refused_on_stream)
            outgoing.put(None)
        # Front-ends read the file each by itself.
        until(lambda: all(refused(batch) for _ in range(10)))


def test_nothing_listens_beyond_this_machine_without_tls_or_consent(models: Path) -> None:
    said = failure(models, "--host", "0.0.0.0")
    assert "--tls-cert" in said
    assert "--insecure" in said
    with running(models, "--host", "0.0.0.0", "--insecure") as server:
        assert server.get("/readyz")[0] == 200


def test_a_certificate_that_cannot_be_used_is_told_before_encoders_are_loaded(models: Path, tmp_path: Path) -> None:
    said = failure(models, "--tls-cert", str(tmp_path / "none.pem"), "--tls-key", str(tmp_path / "none.key"))
    assert "none.pem" in said
    assert SMALL not in said
