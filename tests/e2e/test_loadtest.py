"""`birnn loadtest` against the real server, over every protocol."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birnn_loadtest.targets import PROTOCOLS
from tests.certificates import Authority
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, running
from tests.e2e.test_tokens import change

SMALL = "smiles-small"
RIGHTS = {"caller": "encode", "prometheus": "metrics"}
MOLECULES = MODELS.parent / "examples" / "molecules.smi"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running(MODELS / SMALL / "1", "--http-port", "0") as server:
        yield server


def loadtest(
    out: Path, address: str, *options: object, env: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "birnn", "loadtest", "--address", address, "--encoder", SMALL]
    command += ["--warmup", "0.2", "--out", str(out), *map(str, options)]
    if "--file" not in options:
        command += ["--file", str(MOLECULES)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env={**os.environ, **(env or {})}
    )
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text()), done.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_right_vectors_and_no_errors(server: ServerProcess, tmp_path: Path, protocol: str) -> None:
    http = protocol in ("infer-http", "embeddings")
    address = server.rest.partition("://")[2] if http else server.address
    options = ("--protocol", protocol, "--rate", 40, "--batch", "1=1,4=1", "--duration", 1, "--tolerance", 0)
    code, data, output = loadtest(tmp_path / "result.json", address, *options)
    assert code == 0, output
    assert set(data["run"]["codes"]) == {"OK"}
    assert data["server"].startswith("birnn-serving")
    assert data["check"]["compared"] == data["check"]["equal"] > 20
    assert len(data["run"]["classes"]) == 2


def test_the_server_tells_where_the_time_went(server: ServerProcess, tmp_path: Path) -> None:
    before = server.metric("birnn_requests_total", method="Encode")
    options = ("--rate", 60, "--duration", 1, "--metrics", f"{server.http}/metrics", "--check", 0)
    code, data, output = loadtest(tmp_path / "result.json", server.address, *options)
    assert code == 0, output
    found = data["server_metrics"]
    assert set(found["stages"]) == {"request", "tokenize", "queue", "compute"}
    assert found["missing"] == []
    assert found["problems"] == []
    sent = server.metric("birnn_requests_total", method="Encode") - before
    # The warm-up is left out; a few calls are under way when the metrics are read.
    assert 0 < found["stages"]["request"]["count"] < sent
    assert found["batches"]["count"] > 0
    assert found["rest"] is not None


def test_a_model_that_is_not_served_is_told(server: ServerProcess) -> None:
    for protocol in PROTOCOLS:
        http = protocol in ("infer-http", "embeddings")
        address = server.rest.partition("://")[2] if http else server.address
        command = [sys.executable, "-m", "birnn", "loadtest", "--address", address, "--encoder", "other"]
        command += ["--protocol", protocol, "--file", str(MOLECULES), "--rate", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.returncode == 3
        assert "other" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protocol", ["stream", "infer-stream"])
def test_a_request_that_fails_on_a_stream_fails_alone(server: ServerProcess, tmp_path: Path, protocol: str) -> None:
    file = tmp_path / "some.smi"
    file.write_text(f"CCO\n{'C' * 2000}\n")
    # Open Inference has no errors by item; ours has.
    options = ["--protocol", protocol, "--file", file, "--rate", 60, "--duration", 0.5, "--fail-if", "errors>90%"]
    code, data, output = loadtest(tmp_path / "result.json", server.address, *options)
    assert code == 0, output
    failed = {"stream": set(), "infer-stream": {"INVALID_ARGUMENT"}}[protocol]
    assert set(data["run"]["codes"]) == {"OK"} | failed
    assert data["check"]["wrong"] == 0


def test_tensors_can_be_named(server: ServerProcess, tmp_path: Path) -> None:
    options = ("--protocol", "infer", "--input", "text", "--output", "embedding", "--rate", 40, "--duration", 0.5)
    assert loadtest(tmp_path / "result.json", server.address, *options)[0] == 0
    command = [sys.executable, "-m", "birnn", "loadtest", "--address", server.address, "--encoder", SMALL]
    command += ["--protocol", "infer", "--output", "nothing", "--file", str(MOLECULES), "--rate", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 3
    assert "no output of FP32" in done.stderr
    assert "embedding FP32" in done.stderr


def test_tls_and_tokens_go_along_everywhere(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    tokens = tmp_path / "tokens"
    secrets = {name: change(tokens, "add", name, "--right", right) for name, right in RIGHTS.items()}
    files = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tokens", str(tokens), "--http-port", "0")
    env = {"BIRNN_TOKEN": secrets["caller"], "BIRNN_METRICS_TOKEN": secrets["prometheus"]}
    with running(MODELS / SMALL / "1", *files) as server:
        rest = server.rest.partition("://")[2]
        for protocol, address in (("encode", server.address), ("stream", server.address), ("embeddings", rest)):
            options = ["--protocol", protocol, "--tls-ca", tmp_path / "authority.pem", "--rate", 30, "--duration", 0.5]
            options += ["--metrics", f"{server.http}/metrics"]
            code, data, output = loadtest(tmp_path / "result.json", address, *options, env=env)
            assert code == 0, output
            assert data["server_metrics"]["stages"]
            for secret in secrets.values():
                assert secret not in json.dumps(data)
