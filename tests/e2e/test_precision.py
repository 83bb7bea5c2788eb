"""A server in a reduced precision: it says so everywhere, or refuses to start and says what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import birnn
from birnn_bundle.bundle import Bundle
from birnn_service.commands import models
from birnn_service.engine.native_engine import native_precisions
from tests.e2e.server_process import MODELS, ServerProcess, failure, running

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O"]
NAMES = {"bf16": "bfloat16", "int8": "int8", "fp32": "float32"}
HERE = native_precisions()
REDUCED_HERE = [precision for precision in HERE if precision != "fp32"]
pytestmark = pytest.mark.skipif(not REDUCED_HERE, reason="the kernels compute in float32 only on this processor")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one encoder that was measured here."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "smiles-small", folder / "smiles-small")
    result = CliRunner().invoke(models, ["measure", str(folder / "smiles-small" / "1")])
    assert result.exit_code == 0, result.output
    return folder


def check_named(server: ServerProcess, precision: str) -> None:
    """The list of encoders, replies, metrics and the log name the precision."""
    name = NAMES[precision]
    with birnn.Client(server.address) as client:
        assert client.encoder("smiles-small").precision == name
        (engine,) = client.call(MOLECULES, "smiles-small").engines
        assert engine.endswith(f", cpu, {name}")
    assert server.metric("birnn_encoder_info", encoder="smiles-small", precision=name) == 1
    assert server.logged(f" in {name} on cpu ") == 1


@pytest.mark.parametrize("precision", REDUCED_HERE)
@pytest.mark.parametrize("frontends", ["0", "1"])
def test_a_precision_that_is_asked_for_is_served_and_named_everywhere(
    measured: Path, precision: str, frontends: str
) -> None:
    record = Bundle.load(measured / "smiles-small" / "1").manifest.records[precision]  # type: ignore[index]
    with running(measured) as exact, birnn.Client(exact.address) as client:
        expected = client.encode(MOLECULES, "smiles-small")
    with running(measured, "--precision", precision, "--frontends", frontends) as server:
        check_named(server, precision)
        with birnn.Client(server.address) as client:
            found = client.encode(MOLECULES, "smiles-small")
    error = np.abs(found - expected).max()
    assert 0 < error < record.tolerance
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > record.min_cosine


def test_auto_serves_the_fastest_that_is_allowed_and_logs_why(measured: Path, tmp_path: Path) -> None:
    fastest = HERE[0]
    with running(measured, "--precision", "auto") as server:
        check_named(server, fastest)
        assert fastest == "fp32" or server.logged(f"{fastest} is the fastest precision that is allowed") == 1
    shutil.copytree(measured, tmp_path / "models")
    manifest = tmp_path / "models" / "smiles-small" / "1" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["precisions"]
    manifest.write_text(json.dumps(content))
    with running(tmp_path / "models", "--precision", "auto") as server:
        check_named(server, "fp32")
        for precision in HERE[: HERE.index("fp32")]:
            assert server.logged(f"not {precision}: smiles-small/1: its manifest does not allow") == 1


def test_a_precision_that_cannot_be_served_stops_the_start_and_says_what_to_run(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "models")
    manifest = tmp_path / "models" / "smiles-small" / "1" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["precisions"]
    manifest.write_text(json.dumps(content))
    log = failure(tmp_path / "models", "--precision", REDUCED_HERE[0])
    assert "`birnn models measure BUNDLE`" in log
