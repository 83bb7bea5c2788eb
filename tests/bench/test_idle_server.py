from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench.callers import infer_request
from bench.peers.server import Command, running
from bench.rpc_command import CALLS, _command, measure, render
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, SMILES


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("idle")
    command = _command(MODELS)
    with running(command, "smiles", [], folder / "server.log"):
        yield command


def test_a_server_without_an_engine_answers_zeros_through_the_whole_front_end(command: Command) -> None:
    with grpc.insecure_channel(command.address) as channel:
        reply = GRPCInferenceServiceStub(channel).ModelInfer(infer_request("smiles", ["CCO", "c1ccccc1"]), timeout=60)
    encodings = np.frombuffer(reply.raw_output_contents[0], dtype="<f4")
    assert encodings.shape == (2 * SMILES.dimension,)
    assert not encodings.any()


def test_every_call_is_measured_under_its_loads(command: Command, tmp_path: Path) -> None:
    rows = measure(command, "smiles", list(dict.fromkeys(molecules(800))), [0], 1, 0.5, None, tmp_path)
    assert {row["call"] for row in rows} == set(CALLS.values())
    assert all(row["calls_per_second"] > 0 < row["cpu"] < 1 for row in rows)
    text = render({"rows": rows, "server_cores": [0], "caller_cores": [1], "rounds": 1})
    assert "| grpc.health.v1.Health/Check | 1 in flight | asyncio |" in text
