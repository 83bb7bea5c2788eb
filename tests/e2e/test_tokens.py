"""Tokens and what they let callers do, over every protocol of a real server."""

import http.client
import itertools
import json
import queue
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.json_web_tokens import LEEWAY
from birnn_service.token_commands import tokens
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, SMILES_ALONE, ServerProcess, running, until
from tests.service.test_json_web_tokens import AUDIENCE, EC, ISSUER, RSA, jwk, jwks, signed

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
REQUEST = pb.EncodeRequest(encoder="smiles", sequences=[b"CCO"])


def change(path: Path, *arguments: str) -> str:
    """Change the file of tokens; returns the token, where there is a new one."""
    done = CliRunner().invoke(tokens, [*arguments, "--tokens", str(path)])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


class Guarded(NamedTuple):
    server: ServerProcess
    path: Path
    lab: str
    scrape: str

    def status(self, base: str, path: str, token: str = "", body: Any = None) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of an HTTP reply."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
                return reply.status, dict(reply.headers.items()), reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers.items()), error.read().decode()


@pytest.fixture(scope="module", params=["0", "2"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(MODELS / "smiles" / "1", folder / "models" / "smiles" / "1")
    path = folder / "tokens"
    lab, scrape = change(path, "add", "lab"), change(path, "add", "prometheus", "--right", "metrics")
    arguments = ("--tokens", str(path), "--http-port", "0", "--frontends", request.param, "--log-level", "debug")
    with running(folder / "models", *arguments) as server:
        yield Guarded(server, path, lab, scrape)


@pytest.fixture
def channel(guarded: Guarded) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.server.address) as channel:
        yield channel


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def code_of(call: Any, request: Any, token: str = "") -> grpc.StatusCode:
    """How a call ends, after all of its replies."""
    try:
        reply = call(request, metadata=bearer(token), timeout=PATIENCE_SECONDS)
        if isinstance(reply, Iterator):
            list(reply)
    except grpc.RpcError as error:
        return cast(grpc.Call, error).code()
    return grpc.StatusCode.OK


def test_every_method_over_grpc_asks_for_a_token(guarded: Guarded, channel: grpc.Channel) -> None:
    ours, open_inference = EncoderServiceStub(channel), GRPCInferenceServiceStub(channel)
    tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"CCO")
    infer = inference_pb2.ModelInferRequest(model_name="smiles", inputs=[tensor])
    calls: list[tuple[Any, Any]] = [
        (ours.Encode, lambda: REQUEST),
        (ours.ListEncoders, pb.ListEncodersRequest),
        (ours.EncodeStream, lambda: iter([pb.EncodeStreamRequest(id=1, encode=REQUEST)])),
        (open_inference.ModelInfer, lambda: infer),
        (open_inference.ModelStreamInfer, lambda: iter([infer])),
        (open_inference.ServerMetadata, inference_pb2.ServerMetadataRequest),
        (open_inference.ModelMetadata, lambda: inference_pb2.ModelMetadataRequest(name="smiles")),
        (open_inference.ModelStatistics, inference_pb2.ModelStatisticsRequest),
        (open_inference.RepositoryIndex, inference_pb2.RepositoryIndexRequest),
        (
            reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo,
            lambda: iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
        ),
    ]
    for call, request in calls:
        assert code_of(call, request()) is UNAUTHENTICATED
        assert code_of(call, request(), token=guarded.lab[:-1]) is UNAUTHENTICATED
        assert code_of(call, request(), token=guarded.scrape) is DENIED
        assert code_of(call, request(), token=guarded.lab) is grpc.StatusCode.OK


def test_health_over_grpc_needs_no_token(channel: grpc.Channel) -> None:
    health, open_inference = health_pb2_grpc.HealthStub(channel), GRPCInferenceServiceStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS).status == 1
    assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)).status == 1
    assert open_inference.ServerLive(inference_pb2.ServerLiveRequest(), timeout=PATIENCE_SECONDS).live
    assert open_inference.ServerReady(inference_pb2.ServerReadyRequest(), timeout=PATIENCE_SECONDS).ready
    assert open_inference.ModelReady(inference_pb2.ModelReadyRequest(name="smiles"), timeout=PATIENCE_SECONDS).ready


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "smiles", "input": "CCO"}),
        ("/v1/models", None),
        ("/openapi.json", None),
        ("/v2", None),
        ("/v2/models/smiles", None),
        ("/v2/models/stats", None),
        (
            "/v2/models/smiles/infer",
            {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["CCO"]}]},
        ),
    ],
)
def test_every_path_over_http_asks_for_a_token(guarded: Guarded, path: str, body: Any) -> None:
    rest = guarded.server.rest
    status, headers, content = guarded.status(rest, path, body=body)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert "authorization: Bearer TOKEN" in content
    status, _, content = guarded.status(rest, path, guarded.scrape, body)
    assert status == 403
    assert "lacks the right `encode`" in content
    assert guarded.status(rest, path, guarded.lab, body)[0] == 200


def test_health_over_http_needs_no_token_and_metrics_do(guarded: Guarded) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/smiles/ready"):
        assert guarded.status(guarded.server.rest, path)[0] == 200
    probes = guarded.server.http
    assert guarded.status(probes, "/healthz")[0] == guarded.status(probes, "/readyz")[0] == 200
    assert guarded.status(probes, "/metrics")[0] == 401
    assert guarded.status(probes, "/metrics", guarded.lab)[0] == 403
    assert guarded.status(probes, "/metrics", guarded.scrape)[0] == 200


def test_a_token_that_comes_twice_or_in_the_address_is_none(guarded: Guarded, channel: grpc.Channel) -> None:
    stub, right = EncoderServiceStub(channel), ("authorization", f"Bearer {guarded.lab}")
    for metadata in ([right, right], [right, ("authorization", "Bearer other")], [("x-authorization", right[1])]):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(REQUEST, metadata=metadata, timeout=PATIENCE_SECONDS)
        assert cast(grpc.Call, caught.value).code() is UNAUTHENTICATED
    host, _, port = guarded.server.rest.removeprefix("http://").partition(":")

    def status(target: str, *values: str) -> int:
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_SECONDS)
        connection.putrequest("GET", target)
        for value in values:
            connection.putheader("Authorization", value)
        connection.endheaders()
        return connection.getresponse().status

    assert status("/v1/models", right[1]) == 200
    assert status("/v1/models", f"bEARER   {guarded.lab}  ") == 200
    assert status("/v1/models", right[1], right[1]) == 401
    assert status("/v1/models", "Bearer other", right[1]) == 401
    assert status("/v1/models", guarded.lab) == status("/v1/models", f"Basic {guarded.lab}") == 401
    assert status("/v1/models", "Bearer b\xefrnn") == 401
    for name in ("token", "access_token", "authorization", "api_key"):
        assert status(f"/v1/models?{name}={guarded.lab}") == 401


def test_a_token_that_is_removed_ends_what_its_holder_may_do(guarded: Guarded, channel: grpc.Channel) -> None:
    """While its stream is open and others call."""
    stub = EncoderServiceStub(channel)
    guest = change(guarded.path, "add", "guest")
    # Front-ends read the file each by itself; all that hear of the stream are asked through this one channel.
    until(lambda: code_of(stub.Encode, REQUEST, token=guest) is grpc.StatusCode.OK)
    outgoing: queue.SimpleQueue[pb.EncodeStreamRequest | None] = queue.SimpleQueue()
    stream = stub.EncodeStream(iter(outgoing.get, None), metadata=bearer(guest), timeout=PATIENCE_SECONDS)
    numbers = itertools.count()

    def refused() -> bool:
        outgoing.put(pb.EncodeStreamRequest(id=next(numbers), encode=REQUEST))
        reply: pb.EncodeStreamResponse = next(stream)
        assert reply.HasField("response") or reply.failure.code == UNAUTHENTICATED.value[0]
        return reply.HasField("failure")

    assert not refused()
    over, failed = threading.Event(), []

    def call_on() -> None:
        while not over.is_set():
            if (code := code_of(stub.Encode, REQUEST, token=guarded.lab)) is not grpc.StatusCode.OK:
                failed.append(code)

    others = threading.Thread(target=call_on)
    others.start()
    try:
        change(guarded.path, "remove", "guest")
        until(refused)
        assert refused()
        assert code_of(stub.Encode, REQUEST, token=guest) is UNAUTHENTICATED
    finally:
        over.set()
        others.join()
    outgoing.put(None)
    assert not list(stream)
    assert not failed
    assert code_of(stub.Encode, REQUEST, token=guarded.lab) is grpc.StatusCode.OK


def test_refusals_are_counted_and_no_token_is_logged(guarded: Guarded, channel: grpc.Channel) -> None:
    stub = EncoderServiceStub(channel)
    assert code_of(stub.Encode, REQUEST, token=f"{guarded.lab}wrong") is UNAUTHENTICATED
    assert code_of(stub.Encode, pb.EncodeRequest(encoder="none"), token=guarded.lab) is grpc.StatusCode.NOT_FOUND
    assert code_of(stub.Encode, REQUEST, token=guarded.scrape) is DENIED
    guarded.status(guarded.server.rest, "/v1/models", f"{guarded.lab}wrong")

    def counted(series: str) -> bool:
        page = guarded.status(guarded.server.http, "/metrics", guarded.scrape)[2]
        return any(line.startswith(f"birnn_{series} ") for line in page.splitlines())

    for method in ("Encode", "GET /v1/models"):
        until(partial(counted, f'requests_total{{code="UNAUTHENTICATED",encoder="",method="{method}",version=""}}'))
    # A caller that lacks a right is known all the same.
    until(partial(counted, 'tenant_refused_total{reason="right",tenant="prometheus"}'))
    until(partial(counted, 'tenant_requests_total{code="PERMISSION_DENIED",tenant="prometheus"}'))
    until(lambda: guarded.server.logged("Encode of name:prometheus failed: the token of prometheus lacks the right"))
    until(lambda: guarded.server.logged("Encode of name:lab failed: no encoder"))
    assert guarded.server.logged("Encode of ipv4:127.0.0.1 failed: the token is not one of this server's")
    log = "".join(guarded.server.log)
    assert guarded.lab not in log
    assert guarded.scrape not in log


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_each_request_of_a_stream_is_checked_against_the_end_of_its_jwt_and_the_keys(
    frontends: str, tmp_path: Path
) -> None:
    shutil.copytree(MODELS / "smiles" / "1", tmp_path / "models" / "smiles" / "1")
    keys, named = tmp_path / "jwks", ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    keys.write_bytes(jwks(jwk(RSA)))
    arguments = ("--jwks", str(keys), *named, "--http-port", "0", "--frontends", frontends, "--log-level", "debug")
    with running(tmp_path / "models", *arguments) as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        good, wrong = signed(), signed(scope="birnn:metrics")
        assert code_of(stub.Encode, REQUEST, token=good) is grpc.StatusCode.OK
        assert code_of(stub.Encode, REQUEST, token=wrong) is DENIED
        assert code_of(stub.Encode, REQUEST, token=signed(aud="other")) is UNAUTHENTICATED
        guarded = Guarded(server, keys, good, wrong)
        assert guarded.status(server.rest, "/v1/models", good)[0] == 200
        assert guarded.status(server.rest, f"/v1/models?access_token={good}")[0] == 401
        assert guarded.status(server.http, "/metrics", wrong)[0] == 200
        outgoing: queue.SimpleQueue[pb.EncodeStreamRequest | None] = queue.SimpleQueue()
        numbers = itertools.count()

        def refused(stream: Iterator[pb.EncodeStreamResponse]) -> bool:
            outgoing.put(pb.EncodeStreamRequest(id=next(numbers), encode=REQUEST))
            reply = next(stream)
            assert reply.HasField("response") or reply.failure.code == UNAUTHENTICATED.value[0]
            return reply.HasField("failure")

        # It ends while the stream is open, by the server's clock with its leeway.
        ending = signed(exp=time.time() - LEEWAY + 5)
        stream = stub.EncodeStream(iter(outgoing.get, None), metadata=bearer(ending), timeout=PATIENCE_SECONDS)
        assert not refused(stream)
        until(lambda: refused(stream))
        assert refused(stream)
        outgoing.put(None)
        assert not list(stream)
        stream = stub.EncodeStream(iter(outgoing.get, None), metadata=bearer(good), timeout=PATIENCE_SECONDS)
        assert not refused(stream)
        keys.write_bytes(jwks(jwk(EC)))
        until(lambda: refused(stream))
        outgoing.put(None)
        assert code_of(stub.Encode, REQUEST, token=good) is UNAUTHENTICATED
        assert server.logged("a JWT was refused: it has expired (exp)")
        assert not server.logged(good.rpartition(".")[2])


def test_nothing_is_described_where_that_is_off() -> None:
    with running(SMILES_ALONE, "--describe", "false", "--http-port", "0") as server:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with grpc.insecure_channel(server.address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            assert code_of(stub.ServerReflectionInfo, iter([request])) is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(server.rest + "/openapi.json", timeout=PATIENCE_SECONDS)


def test_neither_watches_without_a_token_nor_idle_streams_keep_others_from_calling(tmp_path: Path) -> None:
    greedy, other = (change(tmp_path / "tokens", "add", name) for name in ("greedy", "other"))
    over = threading.Event()

    def nothing() -> Iterator[pb.EncodeStreamRequest]:
        over.wait()
        yield from ()

    arguments = ("--tokens", str(tmp_path / "tokens"), "--max-calls", "8")
    with running(SMILES_ALONE, *arguments) as server, grpc.insecure_channel(server.address) as channel:
        health, stub = health_pb2_grpc.HealthStub(channel), EncoderServiceStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(9)]
        # Those that are refused end; the others go on.
        until(lambda: sum(watch.code() == EXHAUSTED for watch in watches if not watch.is_active()) == 8)
        streams = [stub.EncodeStream(nothing(), metadata=bearer(greedy)) for _ in range(9)]
        until(lambda: sum(stream.code() == EXHAUSTED for stream in streams if not stream.is_active()) == 3)
        assert code_of(stub.Encode, REQUEST, other) is grpc.StatusCode.OK
        assert code_of(stub.Encode, REQUEST, greedy) is EXHAUSTED
        over.set()
