"""A real server's traces, as they arrive at a collector; one that is slow, refuses or is away disturbs no call."""

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.otlp_server import OtlpServer, Received, otlp_server
from tests.e2e.server_process import PATIENCE_SECONDS, SMILES, SMILES_ALONE, ServerProcess, failure, running, until
from tests.e2e.test_transports import NATIVE

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=some"), ("x-request-id", "order 7"))
UNSAMPLED = (("traceparent", f"00-{'1' * 32}-{SPAN}-00"),)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")
# Cannot be mistaken for anything but a part of a sequence.
CONTENT = "NCCCCCCCCCCCCCCCCN"
ENCODE = "birnn.v1.EncoderService/Encode"
STAGES = ["receive", "tokenize", "queue", "compute", "reply"]
VERSION = str(SMILES.version)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL", "HEADERS", "TIMEOUT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


@pytest.fixture(scope="module", params=[0, pytest.param(2, marks=LINUX)], ids=lambda count: f"{count} front-ends")
def front_ends(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=["grpcio", NATIVE])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpServer]:
    with otlp_server() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(transport: str, front_ends: int, collector: OtlpServer) -> Iterator[ServerProcess]:
    arguments = ["--transport", transport, "--frontends", str(front_ends), "--http-port", "0", "--trace-ratio", "0"]
    with running(SMILES_ALONE, *arguments, "--otlp-endpoint", collector.url) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_before(collector: OtlpServer) -> None:
    collector.spans.clear()


def encode(server: ServerProcess, *metadata: tuple[str, str], count: int = 2, encoder: str = "smiles") -> None:
    request = pb.EncodeRequest(encoder=encoder, sequences=[CONTENT.encode() + b"C" * number for number in range(count)])
    with grpc.insecure_channel(server.address) as channel:
        EncoderServiceStub(channel).Encode(request, metadata=metadata, timeout=PATIENCE_SECONDS)


def post(server: ServerProcess, path: str, body: object, timeout: str = "60") -> int:
    """The status of a call over HTTP that is traced."""
    headers = {**dict(SAMPLED), "content-type": "application/json", "x-request-timeout": timeout}
    request = urllib.request.Request(server.rest + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def arrived(collector: OtlpServer, name: str, count: int = 1) -> list[Received]:
    """The spans of calls of a name, once they and all of their batches are there."""

    def complete() -> bool:
        found = collector.named(name)
        links = {link for call in found for stage in collector.children(call) for link in stage.links}
        return len(found) == count and links <= {(batch.trace, batch.id) for batch in collector.named("batch")}

    until(complete)
    return collector.named(name)


def check_tree(collector: OtlpServer, call: Received, server: ServerProcess, front_ends: int) -> None:
    """A call that succeeded: its stages within it, one after another, and its batches, linked both ways."""
    assert (call.trace, call.parent) == (TRACE, SPAN)
    stages = collector.children(call)
    assert [stage.span.name for stage in stages] == STAGES
    assert all(stage.span.end_time_unix_nano <= call.span.end_time_unix_nano for stage in stages)
    assert all(one.span.end_time_unix_nano <= other.span.start_time_unix_nano for one, other in pairwise(stages))
    assert {stage.span.trace_state for stage in (call, *stages)} == {"vendor=some"}
    compute = stages[STAGES.index("compute")]
    assert compute.links
    for trace, span in compute.links:
        (batch,) = [each for each in collector.named("batch") if (each.trace, each.id) == (trace, span)]
        assert (call.trace, call.id) in batch.links
        assert batch.parent == ""
        assert batch.trace != TRACE
        assert batch.process["birnn.process"] == "engine"
        assert (batch.attributes["birnn.encoder"], batch.attributes["birnn.version"]) == ("smiles", VERSION)
    where = str(call.process["birnn.process"])
    assert where.startswith("frontend-") if front_ends else where == "engine"
    assert call.process["service.name"] == "birnn-serving"
    assert call.attributes["birnn.encoder"] == "smiles"
    assert call.attributes["birnn.version"] == VERSION
    assert call.attributes["birnn.request_id"] == "order 7"
    assert call.attributes["client.address"] == "127.0.0.1"
    assert call.span.status.code == call.span.status.STATUS_CODE_UNSET


def test_a_call_over_grpc(server: ServerProcess, collector: OtlpServer, front_ends: int) -> None:
    encode(server, *SAMPLED)
    (call,) = arrived(collector, ENCODE)
    check_tree(collector, call, server, front_ends)
    assert call.span.kind == call.span.SPAN_KIND_SERVER
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.method"] == ENCODE
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["birnn.sequences"] == 2
    assert not any(CONTENT in str(each.span) for each in collector.spans)
    until(lambda: server.metric("birnn_spans_exported_total") >= len(STAGES) + 2)


def test_each_request_of_a_stream(server: ServerProcess, collector: OtlpServer, front_ends: int) -> None:
    with grpc.insecure_channel(server.address) as channel:
        requests = (
            pb.EncodeStreamRequest(id=number, encode=pb.EncodeRequest(encoder="smiles", sequences=[b"C" * number]))
            for number in (1, 2, 3)
        )
        stub = EncoderServiceStub(channel)
        assert len(list(stub.EncodeStream(requests, metadata=SAMPLED, timeout=PATIENCE_SECONDS))) == 3
    for call in arrived(collector, f"{ENCODE}Stream", count=3):
        check_tree(collector, call, server, front_ends)


@pytest.mark.parametrize(
    ("route", "path", "body"),
    [
        ("/v1/embeddings", "/v1/embeddings", {"model": "smiles", "input": [CONTENT]}),
        (
            "/v2/models/{model}/infer",
            "/v2/models/smiles/infer",
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [CONTENT]}]},
        ),
    ],
)
def test_a_call_over_http(
    route: str, path: str, body: object, server: ServerProcess, collector: OtlpServer, front_ends: int
) -> None:
    assert post(server, path, body) == 200
    (call,) = arrived(collector, f"POST {route}")
    check_tree(collector, call, server, front_ends)
    wanted = {"http.request.method": "POST", "http.route": route, "url.path": path, "url.scheme": "http"}
    assert {name: call.attributes[name] for name in wanted} == wanted
    assert call.attributes["http.response.status_code"] == 200
    assert not any(CONTENT in str(each.span) for each in collector.spans)


def test_callers_that_are_not_traced_and_probes_leave_no_span(server: ServerProcess, collector: OtlpServer) -> None:
    encode(server, *UNSAMPLED)
    encode(server)
    urllib.request.urlopen(urllib.request.Request(server.rest + "/v2/health/live", headers=dict(SAMPLED))).close()
    encode(server, *SAMPLED)
    arrived(collector, ENCODE)
    assert {each.trace for each in collector.spans if each.span.name != "batch"} == {TRACE}
    assert not collector.named("GET /v2/health/live")


def test_calls_that_fail(server: ServerProcess, collector: OtlpServer) -> None:
    with pytest.raises(grpc.RpcError):
        encode(server, *SAMPLED, encoder="nobody")
    (call,) = arrived(collector, ENCODE)
    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert "error.type" not in call.attributes
    assert call.span.status.code == call.span.status.STATUS_CODE_UNSET
    assert post(server, "/v1/embeddings", {"model": "smiles", "input": [f"{CONTENT}?!"]}) == 400
    (call,) = arrived(collector, "POST /v1/embeddings")
    assert call.attributes["http.response.status_code"] == 400
    assert not any(CONTENT in str(each.span) for each in collector.spans)


def test_a_call_whose_deadline_cannot_be_met_fails_in_its_stage(server: ServerProcess, collector: OtlpServer) -> None:
    body = {"model": "smiles", "input": ["C" * 1000] * 500}
    assert post(server, "/v1/embeddings", body, timeout="0.001") == 504
    (call,) = arrived(collector, "POST /v1/embeddings")
    assert call.attributes["error.type"] == "504"
    assert call.span.status.code == call.span.status.STATUS_CODE_ERROR
    *good, last = collector.children(call)
    assert last.span.status.code == call.span.status.STATUS_CODE_ERROR
    assert all(stage.span.status.code == call.span.status.STATUS_CODE_UNSET for stage in good)


def test_calls_without_a_trace_begin_one_by_the_ratio(collector: OtlpServer) -> None:
    with running(SMILES_ALONE, "--otlp-endpoint", collector.url, "--trace-ratio", "1") as server:
        encode(server)
        encode(server, *UNSAMPLED)
        (call,) = arrived(collector, ENCODE)
        assert call.parent == ""
        assert call.trace not in (TRACE, "1" * 32)


def test_callers_cannot_have_more_traced_than_the_rate_allows(collector: OtlpServer) -> None:
    arguments = ["--otlp-endpoint", collector.url, "--trace-spans-per-second", "0.000001"]
    with running(SMILES_ALONE, *arguments) as server:
        for _ in range(5):
            encode(server, *SAMPLED, count=1)
        # Six spans for the first call, none for its batch. Two sequences might run in two batches.
        until(lambda: server.metric("birnn_spans_dropped_total", reason="rate") == 4 * 6 + 1)
        until(lambda: server.metric("birnn_spans_exported_total") == 6)
    assert len(collector.named(ENCODE)) == 1


def test_a_part_of_the_content_only_if_that_is_asked_for(collector: OtlpServer) -> None:
    with running(SMILES_ALONE, "--otlp-endpoint", collector.url, "--trace-content-bytes", "20") as server:
        encode(server, *SAMPLED)
        (call,) = arrived(collector, ENCODE)
    assert call.attributes["birnn.content"] == [CONTENT, CONTENT[:2]]


def test_opentelemetrys_variables(collector: OtlpServer) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
        "OTEL_SERVICE_NAME": "encoders",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with running(SMILES_ALONE, env=env) as server:
        encode(server, *SAMPLED)
        (call,) = arrived(collector, ENCODE)
    assert call.process["service.name"] == "encoders"
    assert call.process["deployment.environment.name"] == "test"
    assert collector.headers["x-key"] == "secret"


@pytest.mark.parametrize("count", [0, pytest.param(2, marks=LINUX)])
def test_a_collector_that_stalls_delays_no_call_and_no_shutdown(count: int) -> None:
    arguments = ["--trace-queue-spans", "7", "--trace-flush-seconds", "0.1", "--frontends", str(count)]
    with otlp_server(opened=False) as collector:
        with running(SMILES_ALONE, "--otlp-endpoint", collector.url, *arguments) as server:
            encode(server, *SAMPLED)
            until(collector.asked.is_set)
            # While it stalls, one call more waits, and others are dropped, and all are answered.
            for _ in range(8):
                encode(server, *SAMPLED)
            until(lambda: server.metric("birnn_spans_dropped_total", reason="queue") > 0)
            assert server.metric("birnn_spans_exported_total") == 0
            server.terminate()
            assert server.ended() == 0
        assert server.logged("were not exported within 0.1 s (--trace-flush-seconds) and are lost")
        assert not collector.spans


def dropped(server: ServerProcess, spans: int) -> Callable[[], bool]:
    return lambda: server.metric("birnn_spans_dropped_total", reason="export") == spans


def test_a_collector_that_refuses_is_told_of_once_until_it_takes_spans(collector: OtlpServer) -> None:
    collector.status = 400
    try:
        # One sequence, so that there is one batch.
        with running(SMILES_ALONE, "--otlp-endpoint", collector.url) as server:
            for count in (1, 2):
                encode(server, *SAMPLED, count=1)
                until(dropped(server, 7 * count))
            assert server.logged("spans cannot be exported") == 1
            assert server.logged("400") == 1
            collector.status = 200
            encode(server, *SAMPLED, count=1)
            until(lambda: server.metric("birnn_spans_exported_total") == 7)
            until(lambda: server.logged("spans are exported again"))
    finally:
        collector.status = 200


def test_a_collector_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    env = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    with running(SMILES_ALONE, "--otlp-endpoint", f"http://127.0.0.1:{port}", env=env) as server:
        encode(server, *SAMPLED, count=1)
        until(dropped(server, 7))
        assert server.logged("spans cannot be exported") == 1
        server.terminate()
        assert server.ended() == 0


def test_what_waits_at_shutdown_is_exported(collector: OtlpServer, front_ends: int) -> None:
    arguments = ["--otlp-endpoint", collector.url, "--frontends", str(front_ends)]
    with running(SMILES_ALONE, *arguments) as server:
        encode(server, *SAMPLED, count=1)
        server.terminate()
        assert server.ended() == 0
    assert len(collector.named(ENCODE)) == len(collector.named("batch")) == 1


def test_a_server_that_should_trace_and_cannot_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('it is not installed')\n")
    env = {"PYTHONPATH": str(tmp_path)}
    log = failure(SMILES_ALONE, "--otlp-endpoint", "http://127.0.0.1:4318", env=env)
    assert "pip install 'birnn-serving[otel]'" in log
    with running(SMILES_ALONE, env=env) as server:
        encode(server, *SAMPLED)
