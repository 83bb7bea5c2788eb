"""Clients of the Open Inference Protocol."""

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest

from bench.loads import Load
from bench.peers.perf_analyzer import PerfAnalyzer, write_input
from birnn_bundle.bundle import Bundle
from tests.clients.conftest import Encode, Record
from tests.clients.environments import output, python_packages
from tests.clients.recipes import recipe
from tests.e2e.server_process import MODELS, SMILES, ServerProcess

FOREIGN = Path(__file__).parent / "foreign"
TRITONCLIENT, KSERVE = "2.73.0", "0.21.0"
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


@pytest.mark.clients(
    f"tritonclient {TRITONCLIENT}, sync", "streams, repository index, statistics, token ids and outputs"
)
def test_tritonclient_s_other_methods(server: ServerProcess, ours: Encode) -> None:
    environment = python_packages("tritonclient", f"tritonclient[grpc]=={TRITONCLIENT}")
    ids = Bundle.load(MODELS / "smiles" / "2").tokenizer.tokenize(MOLECULES, SMILES.max_length).batch
    rows = json.dumps([ids.row(number).tolist() for number in range(len(MOLECULES))])
    script = Path(__file__).parents[1] / "e2e" / "foreign_extensions.py"
    answer = json.loads(output(environment.python, script, server.address, "smiles", rows))
    np.testing.assert_allclose(np.array(answer["ids"]["embedding"]), ours(MOLECULES, "smiles"), atol=1e-5)
    first, bad, *_ = answer["stream"]
    assert first == "a"
    assert "cannot read character" in bad
    assert answer["aio_stream"] == ["x", "y", "z"]
    assert {"name": "smiles", "version": "2", "state": "READY"} in answer["index"]
    assert any(int(one.get("inference_count", 0)) > 0 for one in answer["statistics"])


@pytest.mark.clients(
    f"tritonclient {TRITONCLIENT}, HTTP", "metadata, config, index, statistics; infer in JSON and bytes, gzip"
)
def test_tritonclient_over_http(server: ServerProcess, ours: Encode) -> None:
    environment = python_packages("tritonclient-http", f"tritonclient[http]=={TRITONCLIENT}")
    address = server.rest.removeprefix("http://")
    answer = json.loads(output(environment.python, FOREIGN / "triton_http.py", address, "smiles", *MOLECULES))
    states = ("live", "ready", "model_ready", "stranger_ready")
    assert [answer[state] for state in states] == [True, True, True, False]
    assert answer["server"]["name"] == "birnn-serving"
    assert answer["metadata"]["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    assert answer["config"]["output"][0]["data_type"] == "TYPE_FP32"
    assert {"smiles", "smiles-small", "text"} <= {model["name"] for model in answer["index"]}
    assert len(answer["infer"]) == 12
    for request_id, vectors in answer["infer"]:
        assert request_id == "7"
        np.testing.assert_allclose(np.array(vectors), ours(MOLECULES, "smiles"), atol=1e-5)
    (counted,) = (model for model in answer["statistics"]["model_stats"] if model["version"] == "2")
    assert counted["inference_stats"]["success"]["count"] >= 12
    status, message = answer["error"]
    assert "400" in status
    assert "cannot read character" in message


@pytest.mark.clients(f"tritonclient {TRITONCLIENT}, HTTP", "infer (recipe)")
def test_tritonclient_recipe(server: ServerProcess) -> None:
    environment = python_packages("tritonclient-http", f"tritonclient[http]=={TRITONCLIENT}")
    printed = output(environment.python, "-c", recipe("tritonclient over HTTP", "python", http=server.rest))
    assert printed == f"(2, {SMILES.dimension})\n"


@pytest.mark.parametrize(
    "transport",
    [
        pytest.param("REST", marks=pytest.mark.clients(f"kserve {KSERVE}, REST", "infer in JSON and bytes, states")),
        pytest.param("gRPC", marks=pytest.mark.clients(f"kserve {KSERVE}, gRPC", "infer, raw and typed, states")),
    ],
)
def test_kserve(server: ServerProcess, ours: Encode, transport: str) -> None:
    # It imports what pandas 3 no longer has.
    environment = python_packages("kserve", f"kserve=={KSERVE}", "pandas<3", constrained=False)
    address = {"REST": server.rest, "gRPC": server.address}[transport]
    answer = json.loads(
        output(environment.python, FOREIGN / "kserve_caller.py", transport, address, "smiles", *MOLECULES)
    )
    assert answer["states"] == [True, True, True]
    assert len(answer["vectors"]) == 2
    for vectors in answer["vectors"]:
        np.testing.assert_allclose(np.array(vectors).reshape(2, -1), ours(MOLECULES, "smiles"), atol=1e-5)
    assert "cannot read character" in answer["error"]


def perf_analyzer() -> PerfAnalyzer:
    try:
        return PerfAnalyzer.install()
    except click.ClickException as error:
        pytest.skip(error.message)


@pytest.mark.clients("perf_analyzer 2.40", "-i grpc, 8 sequences a call")
def test_perf_analyzer(server: ServerProcess, tmp_path: Path, record_property: Record) -> None:
    analyzer = perf_analyzer()
    sequences = ["C" * (1 + number % 40) + "O" for number in range(64)]
    load = Load("clients", 8, 1)
    sample = analyzer.run(load, "smiles", server.address, sequences, window=1.0, prefix=(), scratch=tmp_path)
    assert sample.calls > 0
    assert server.metric("birnn_requests_total", encoder="smiles") >= sample.calls
    rate, median, late = sample.calls_per_second, 1e3 * sample.p50, 1e3 * sample.p99
    record_property("result", f"{rate:.0f} calls/s, p50 {median:.1f} ms, p99 {late:.1f} ms")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("-i", "http"), marks=pytest.mark.clients("perf_analyzer 2.40", "-i http, what the server took")),
        pytest.param(
            ("-i", "grpc", "--streaming"),
            marks=pytest.mark.clients("perf_analyzer 2.40", "-i grpc --streaming, what the server took"),
        ),
    ],
)
def test_perf_analyzer_tells_what_the_server_took(
    server: ServerProcess, tmp_path: Path, record_property: Record, options: tuple[str, ...]
) -> None:
    analyzer = perf_analyzer()
    write_input(tmp_path / "data.json", ["C" * (1 + number % 40) + "O" for number in range(64)])
    address = server.rest.removeprefix("http://") if "http" in options else server.address
    load = (
        "--concurrency-range",
        "2",
        "-p",
        "1000",
        "-r",
        "3",
        "-s",
        "1000000",
        "--input-data",
        tmp_path / "data.json",
    )
    printed = output(
        analyzer.program, "-m", "smiles-small", "-u", address, *options, *load, LD_LIBRARY_PATH=str(analyzer.libraries)
    )
    rate = re.search(r"Throughput: ([\d.]+) infer/sec", printed)
    inside = re.search(
        r"Server:.*?queue (\d+) usec \+ compute input \d+ usec \+ compute infer (\d+) usec", printed, re.DOTALL
    )
    assert rate is not None, printed
    assert inside is not None, printed
    assert int(inside[2]) > 0
    record_property("result", f"{float(rate[1]):.0f} calls/s; server: queue {inside[1]} us, compute {inside[2]} us")
