"""What a real server logs: every line in its form, calls if that is asked for, and never what they hold."""

import json
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.token_file import Right
from tests.e2e.server_process import PATIENCE_SECONDS, SMILES_ALONE, ServerProcess, failure, running, until
from tests.e2e.test_transports import NATIVE
from tests.service.access.callers import LAB, written

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"), ("x-request-id", "order 7"))
CONTENT = "NCCCCCCCCCCCCCCCCN"
# Errors quote it to callers: it is part of no molecule.
UNREADABLE = "Ʉ"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module", params=[0, pytest.param(2, marks=LINUX)], ids=lambda count: f"{count} front-ends")
def front_ends(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module", params=["grpcio", NATIVE])
def server(request: pytest.FixtureRequest, front_ends: int) -> Iterator[ServerProcess]:
    arguments = ["--transport", str(request.param), "--frontends", str(front_ends), "--http-port", "0"]
    arguments += ["--log-format", "json", "--log-level", "debug", "--access-log", "1"]
    with running(SMILES_ALONE, *arguments) as server:
        yield server


def entries(server: ServerProcess) -> list[dict[str, Any]]:
    """All lines so far."""
    return [json.loads(line) for line in list(server.log)]


def calls(server: ServerProcess, **wanted: object) -> list[dict[str, Any]]:
    """Lines of the access log that say this."""
    return [entry for entry in entries(server) if entry["logger"] == "birnn.access" and wanted.items() <= entry.items()]


def encode(address: str, sequence: str, encoder: str = "smiles", *metadata: tuple[str, str]) -> None:
    with grpc.insecure_channel(address) as channel:
        request = pb.EncodeRequest(encoder=encoder, sequences=[sequence.encode()])
        EncoderServiceStub(channel).Encode(request, metadata=metadata, timeout=PATIENCE_SECONDS)


def post(server: ServerProcess, path: str, body: object, headers: Mapping[str, str]) -> int:
    request = urllib.request.Request(server.rest + path, json.dumps(body).encode(), dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_line_for_each_call_over_grpc_and_http(server: ServerProcess, front_ends: int) -> None:
    encode(server.address, CONTENT, "smiles", *TRACED)
    assert post(server, "/v1/embeddings", {"model": "smiles", "input": ["CCO", "C"]}, dict(TRACED)) == 200
    for method, sequences in (("Encode", 1), ("POST /v1/embeddings", 2)):
        until(partial(calls, server, method=method))
        (line,) = calls(server, method=method)
        wanted = {
            "level": "info", "code": "OK", "encoder": "smiles", "version": "2", "sequences": sequences,
            "caller": "ipv4:127.0.0.1", "request_id": "order 7", "trace_id": TRACE,
        }  # fmt: skip
        assert wanted.items() <= line.items()
        assert RFC3339.fullmatch(line["time"])
        assert line["process"].startswith("frontend-") if front_ends else line["process"] == "engine"
        parts = [line[f"{stage}_seconds"] for stage in ("receive", "tokenize", "queue", "compute", "reply")]
        assert all(part >= 0 for part in parts)
        # One sequence may wait while another is computed, so the parts may overlap. They are rounded to a microsecond.
        assert max(parts) <= line["seconds"] + 1e-6


def test_a_call_that_fails_and_every_line_is_json_and_holds_no_sequence(server: ServerProcess) -> None:
    with pytest.raises(grpc.RpcError):
        encode(server.address, CONTENT, "nobody", ("x-request-id", "order 8"))
    until(lambda: calls(server, request_id="order 8"))
    (line,) = calls(server, request_id="order 8")
    assert (line["code"], "encoder" in line, "trace_id" in line) == ("NOT_FOUND", False, False)
    # At the level `debug` it has a line with its reason, too.
    (reason,) = [each for each in entries(server) if each["level"] == "debug" and each.get("request_id") == "order 8"]
    assert "nobody" in reason["message"]
    invalid = {"model": "smiles", "input": [CONTENT + UNREADABLE]}
    assert post(server, "/v1/embeddings", invalid, {"x-request-id": "order 9"}) == 400
    until(lambda: calls(server, request_id="order 9"))
    broken = {"inputs": [{"name": CONTENT, "datatype": CONTENT, "shape": [1], "data": [CONTENT]}]}
    assert post(server, "/v2/models/smiles/infer", broken, {"x-request-id": "order 10"}) == 400
    until(lambda: calls(server, request_id="order 10"))
    assert not any(content in str(entry) for entry in entries(server) for content in (CONTENT, UNREADABLE))


def test_no_caller_breaks_a_line(server: ServerProcess) -> None:
    host, port = server.rest.removeprefix("http://").split(":")
    # What a header may hold: a tab, and, in Latin-1, what some take for the end of a line.
    forged = "a\tb\x85{}\x9b31m"
    body = b'{"model": "smiles", "input": "C"}'
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-request-id: {forged}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode("latin-1") + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    written = "a\\tb\\x85{}\\x9b31m"
    until(lambda: calls(server, request_id=written))
    assert len("".join(server.log).splitlines()) == len(server.log) == len(entries(server))


def test_refused_callers_have_a_line_too(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_bytes(written(lab=(LAB, (Right.ENCODE,))))
    tokens.chmod(0o600)
    with running(SMILES_ALONE, "--tokens", str(tokens), "--access-log", "1") as server:
        with pytest.raises(grpc.RpcError):
            encode(server.address, CONTENT)
        encode(server.address, CONTENT, "smiles", ("authorization", f"Bearer {LAB}"))
        until(lambda: server.logged("INFO call ") == 2)
        refused, taken = [line for line in server.log if "INFO call " in line]
    assert "code=UNAUTHENTICATED" in refused
    assert "caller=ipv4:127.0.0.1" in refused
    assert "caller=lab" in taken
    assert LAB not in "".join(server.log)


def test_no_call_has_a_line_by_default() -> None:
    with running(SMILES_ALONE) as server:
        encode(server.address, CONTENT, "smiles", *TRACED)
        server.terminate()
        assert server.ended() == 0
    assert not server.logged("Encode")
    assert not server.logged("order 7")


def test_a_server_that_does_not_start_says_why_as_json(tmp_path: Path) -> None:
    log = failure(tmp_path / "nothing", "--log-format", "json")
    found = [json.loads(line) for line in log.splitlines()]
    assert found[-1]["level"] == "critical"
    assert "nothing" in found[-1]["message"]
