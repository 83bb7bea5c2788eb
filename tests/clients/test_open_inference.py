"""Clients of the Open Inference Protocol."""

import json
from pathlib import Path

import click
import numpy as np
import pytest

from bench.loads import Load
from bench.peers.perf_analyzer import PerfAnalyzer
from tests.clients.conftest import Encode, Record
from tests.clients.environments import output, python_packages
from tests.e2e.server_process import ServerProcess

FOREIGN = Path(__file__).parent / "foreign"
TRITONCLIENT = "2.73.0"
MOLECULES = ["CCO", "c1ccccc1"]


@pytest.mark.clients(f"tritonclient {TRITONCLIENT}, sync", "metadata, ModelInfer")
def test_tritonclient(server: ServerProcess, ours: Encode) -> None:
    environment = python_packages("tritonclient", f"tritonclient[grpc]=={TRITONCLIENT}")
    script = Path(__file__).parents[1] / "e2e" / "foreign_client.py"
    answer = json.loads(output(environment.python, script, server.address, "smiles", *MOLECULES))
    assert answer["metadata"]["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": ["-1", "1"]}]
    np.testing.assert_allclose(np.array(answer["embedding"]), ours(MOLECULES, "smiles"), atol=1e-5)


@pytest.mark.clients(f"tritonclient {TRITONCLIENT}, aio", "8 x ModelInfer")
def test_tritonclient_for_asyncio(server: ServerProcess, ours: Encode) -> None:
    environment = python_packages("tritonclient", f"tritonclient[grpc]=={TRITONCLIENT}")
    script = FOREIGN / "triton_aio.py"
    answers = json.loads(output(environment.python, script, server.address, "smiles", *MOLECULES))
    assert len(answers) == 8
    for answer in answers:
        np.testing.assert_allclose(np.array(answer), ours(MOLECULES, "smiles"), atol=1e-5)


@pytest.mark.clients("perf_analyzer 2.40", "-i grpc, 8 sequences a call")
def test_perf_analyzer(server: ServerProcess, tmp_path: Path, record_property: Record) -> None:
    try:
        analyzer = PerfAnalyzer.install()
    except click.ClickException as error:
        pytest.skip(error.message)
    sequences = ["C" * (1 + number % 40) + "O" for number in range(64)]
    load = Load("clients", 8, 1)
    sample = analyzer.run(load, "smiles", server.address, sequences, window=1.0, prefix=(), scratch=tmp_path)
    assert sample.calls > 0
    assert server.metric("birnn_requests_total", encoder="smiles") >= sample.calls
    rate, median, late = sample.calls_per_second, 1e3 * sample.p50, 1e3 * sample.p99
    record_property("result", f"{rate:.0f} calls/s, p50 {median:.1f} ms, p99 {late:.1f} ms")
