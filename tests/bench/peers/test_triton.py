"""`birnn loadtest` against the real Triton: every protocol that it speaks, and its metrics."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers.server import Command, running
from bench.peers.triton import Triton
from birnn_bundle.bundle import Bundle
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS

SMALL = "smiles-small"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    scratch = tmp_path_factory.mktemp("triton")
    settings = {"max_batch_size": 64, "max_queue_delay_us": 0, "instances": 1}
    command = Triton(observed=True).prepare(Bundle.load(MODELS / SMALL / "1"), settings, 1, scratch)
    with running(command, SMALL, [], scratch / "log"):
        yield command


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["infer", "infer-stream", "infer-http"])
def test_triton_is_measured_with_the_same_tool(triton: Command, tmp_path: Path, protocol: str) -> None:
    out, file = tmp_path / "run.json", tmp_path / "some.smi"
    # One call in three fails by itself, on a stream, too.
    file.write_text("CCO\nc1ccccc1\nxyz\n")
    address = triton.http if protocol == "infer-http" else triton.address
    command = [sys.executable, "-m", "birnn", "loadtest", "--protocol", protocol, "--address", str(address)]
    command += ["--encoder", SMALL, "--file", str(file), "--rate", "40", "--duration", "2", "--out", str(out)]
    command += ["--metrics", str(triton.metrics), "--fail-if", "errors>60%"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(out.read_text())
    codes = data["run"]["codes"]
    assert data["server"].startswith("triton 2")
    assert len(codes) == 2
    assert codes["OK"] > 0
    assert data["check"]["compared"] > data["check"]["wrong"] == 0
    found = data["server_metrics"]
    assert found["missing"] == found["problems"] == []
    assert found["rest"] >= 0
    # The warm-up is left out; a few calls are under way when the metrics are read.
    assert 0 < found["stages"]["compute"]["count"] <= codes["OK"] + 10
    assert found["counters"]["failed_calls"] > 0
    assert found["stages"]["request"]["mean"] < data["run"]["latency"]["mean"]
    # A batch that failed counts, and its sequences do not.
    assert 0 < found["batches"]["mean"] <= 1
    assert found["counters"]["sequences"] == found["counters"]["calls"]
