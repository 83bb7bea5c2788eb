"""HTTP without a client library: curl, and what the OpenAPI document promises."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.clients.conftest import Encode, Record
from tests.clients.environments import needs_program, output, python_packages
from tests.clients.recipes import recipe
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, running

SCHEMATHESIS = "4.32.5"
MOLECULES = ["CCO", "c1ccccc1"]


@pytest.mark.clients("curl", "/v1/embeddings, /v1/models and .../infer in JSON (recipe)")
def test_curl(server: ServerProcess, ours: Encode, tmp_path: Path, record_property: Record) -> None:
    needs_program("curl", "curl")
    output("sh", "-ec", recipe("curl", "sh", http=server.rest), cwd=tmp_path)
    names = {model["id"] for model in json.loads((tmp_path / "models.json").read_text())["data"]}
    assert "smiles@2" in names
    items = json.loads((tmp_path / "embeddings.json").read_text())["data"]
    (tensor,) = json.loads((tmp_path / "tensors.json").read_text())["outputs"]
    expected = ours(MOLECULES, "smiles", 2)
    np.testing.assert_allclose(np.array([item["embedding"] for item in items]), expected, atol=1e-5)
    np.testing.assert_allclose(np.array(tensor["data"]).reshape(tensor["shape"]), expected, atol=1e-5)
    record_property("result", output("curl", "--version").split()[1])


@pytest.mark.clients(f"schemathesis {SCHEMATHESIS}", "what /openapi.json allows, and what it does not")
def test_schemathesis(record_property: Record) -> None:
    # A server of its own that takes no orders: it would be told to unload what it serves, to the last encoder.
    with running(MODELS, "--http-port", "0", "--admin", "false") as server:
        explore(server, record_property)


def explore(server: ServerProcess, record_property: Record) -> None:
    """Send what the description of the API allows, and what it does not."""
    environment = python_packages("schemathesis", f"schemathesis=={SCHEMATHESIS}", constrained=False)
    # Its phase `examples` stumbles over Python 3.11's parser.
    options = ("--phases=coverage,fuzzing", "--checks=not_a_server_error", "--max-examples=100")
    # Its own times would make it a matter of luck whether a call is too late, which is a 504.
    patient = ("--header", f"X-Request-Timeout: {PATIENCE_SECONDS}")
    quiet = ("--generation-deterministic", "--no-color", "--warnings=off")
    command = (environment.program("schemathesis"), "run", f"{server.rest}/openapi.json", *options, *patient, *quiet)
    printed = output(*command, cwd=environment.place)
    generated = re.search(r"(\d+) generated, \1 passed", printed)
    assert generated is not None, printed
    assert int(generated[1]) > 1000
    assert server.metric("birnn_unexpected_errors_total") == 0
    record_property("result", f"{generated[1]} requests, no 5xx")
