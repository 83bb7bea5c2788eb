"""Every server shows the same series, whichever transport takes its calls, and in however many processes."""

import sys
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.errors import ANSWERS
from tests.e2e.molecules import molecules
from tests.e2e.server_process import PATIENCE_SECONDS, SMILES, SMILES_ALONE, ServerProcess, running, until
from tests.e2e.test_transports import NATIVE

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
VERSION = str(SMILES.version)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")
FRONT_ENDS = [0, pytest.param(2, marks=LINUX)]

Series = set[tuple[str, frozenset[tuple[str, str]]]]
# What each kind of server has shown, by transport and front-ends; each is compared with those before it.
seen: dict[tuple[str, int], Series] = {}


@pytest.fixture(
    scope="module", params=FRONT_ENDS, ids=lambda count: f"{count} front-ends" if isinstance(count, int) else None
)
def front_ends(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=["grpcio", NATIVE])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(transport: str, front_ends: int) -> Iterator[ServerProcess]:
    arguments = ["--transport", transport, "--frontends", str(front_ends), "--cache-mib", "1"]
    with running(SMILES_ALONE, *arguments) as server:
        yield server


def series_of(server: ServerProcess) -> Series:
    """Our own series with a value, of the engine process and the first front-end alone."""
    places = {"engine": "a process", "frontend-1": "a process"}
    return {
        (name, frozenset((label, places.get(value, value)) for label, value in labels))
        for name, labels in server.samples()
        if name.startswith(("birnn_", "rpc_")) and ("process", "frontend-2") not in labels
    }


def test_failures_begin_at_0(server: ServerProcess, front_ends: int) -> None:
    # What front-ends count comes twice a second.
    until(lambda: server.samples().get(("birnn_requests_total", frozenset(LABELS.items()))) is not None)
    found = server.samples()
    for code in ANSWERS:
        assert found["birnn_requests_total", frozenset({**LABELS, "code": code.name}.items())] == 0
    for reason in ("queue", "deadline", "memory", "rate"):
        labels = {"encoder": "smiles", "version": VERSION, "reason": reason}
        assert found["birnn_refused_total", frozenset(labels.items())] == 0


LABELS = {"encoder": "smiles", "version": VERSION, "method": "Encode", "code": "UNAVAILABLE"}


def test_calls_are_counted_by_version_and_code_and_show_their_traces(
    server: ServerProcess, transport: str, front_ends: int
) -> None:
    good = pb.EncodeRequest(encoder="smiles", sequences=[text.encode() for text in molecules(16)])
    none, unknown = pb.EncodeRequest(encoder="smiles"), pb.EncodeRequest(encoder="nobody", sequences=[b"C"])
    with grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        stub.Encode(good, timeout=PATIENCE_SECONDS, metadata=TRACED)
        stub.Encode(good, timeout=PATIENCE_SECONDS)
        requests = (pb.EncodeStreamRequest(id=number, encode=good) for number in range(2))
        assert len(list(stub.EncodeStream(requests, timeout=PATIENCE_SECONDS, metadata=TRACED))) == 2
        for request in (none, unknown):
            with pytest.raises(grpc.RpcError):
                stub.Encode(request, timeout=PATIENCE_SECONDS)
    counted = {"encoder": "smiles", "version": VERSION, "method": "Encode"}
    until(lambda: server.metric("birnn_requests_total", encoder="", code="NOT_FOUND") == 1)
    assert server.metric("birnn_requests_total", **counted, code="OK") == 2
    assert server.metric("birnn_requests_total", **counted, code="INVALID_ARGUMENT") == 1
    for code, count in (("OK", 2), ("INVALID_ARGUMENT", 1)):
        assert server.metric("birnn_request_seconds_count", **counted, code=code) == count
        path = {"rpc_method": "birnn.v1.EncoderService/Encode", "rpc_response_status_code": code}
        assert server.metric("rpc_server_call_duration_seconds_count", version=VERSION, **path) == count
    assert server.metric("birnn_request_seconds_count", encoder="smiles", method="EncodeStream", code="OK") == 2
    # In the cache from the first call on.
    assert server.metric("birnn_sequences_total", encoder="smiles", version=VERSION) == len(set(molecules(16)))
    assert server.metric("birnn_engine_busy_seconds_total", encoder="smiles", version=VERSION) > 0
    assert server.metric("birnn_engine_slots") >= 1
    assert server.metric("birnn_backlog_seconds") == 0
    assert server.metric("birnn_backlog_limit_seconds") == 30
    processes = max(1, front_ends)
    assert server.metric("birnn_calls_limit") == processes * 8192
    until(lambda: server.metric("birnn_calls_in_flight") == 0)
    until(lambda: server.metric("birnn_call_memory_bytes") == 0)
    assert server.metric("birnn_call_memory_limit_bytes") > 0
    assert server.metric("birnn_process_descriptors") > 0
    assert server.metric("birnn_process_cpu_seconds_total") > 0
    until(lambda: server.metric("birnn_loop_lag_seconds_count") > 0)
    assert traces(server, "birnn_request_seconds") == traces(server, "rpc_server_call_duration_seconds") == {TRACE}
    # Idle encoders prove themselves from time to time, and tell of it from the first time on.
    until(lambda: server.metric("birnn_health_probes_total", outcome="passed") > 0)
    seen[transport, front_ends] = series_of(server)
    for other in seen.values():
        assert other ^ seen[transport, front_ends] == set()


def traces(server: ServerProcess, name: str) -> set[str]:
    """Traces of the exemplars of a metric; the text format of old has none."""
    assert TRACE not in server.get("/metrics")[1]
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(urllib.request.Request(server.http + "/metrics", headers=headers)) as reply:
        families = list(open_metrics(reply.read().decode()))  # type: ignore[no-untyped-call]
    (family,) = [family for family in families if family.name == name]
    return {sample.exemplar.labels["trace_id"] for sample in family.samples if sample.exemplar}
