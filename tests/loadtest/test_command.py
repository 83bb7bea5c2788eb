import json
import lzma
import threading
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from birnn_loadtest.command import loadtest
from tests.client.fake_service import DIMENSION, Failure, FakeService

MOLECULES = "CCO ethanol\nc1ccccc1 benzene\n\nCC(=O)O\n"


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.smi"
    path.write_text(MOLECULES)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(loadtest, [str(argument) for argument in arguments])


def test_the_result_holds_what_is_needed_to_repeat_and_judge_it(
    service: FakeService, molecules: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    options = ["--rate", 100, "--batch", 2, "--duration", 0.5, "--warmup", 0.2, "--seed", 3]
    result = run("--address", service.address, "--file", molecules, *options, "--out", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert data["schema_version"] == 1
    assert data["settings"] == {
        "address": service.address,
        "file": str(molecules),
        "population": 3,
        "rate": 100,
        "concurrency": None,
        "batch": 2,
        "duration": 0.5,
        "warmup": 0.2,
        "timeout": 10,
        "seed": 3,
        "channels": 4,
        "most_in_flight": 10_000,
        "tls": False,
    }
    assert set(data["client"]) == {"birnn_serving", "grpcio", "python", "event_loop", "machine"}
    assert data["encoder"]["version"] == "10"
    assert data["encoder"]["dimension"] == DIMENSION
    assert data["server"] is None
    due = data["calls"]["due"]
    assert 20 < due < 100
    assert data["calls"]["codes"] == {"OK": due}
    assert data["offered"] == {"calls": due / 0.5, "sequences": 2 * due / 0.5}
    assert data["sequences"] == {"due": 2 * due, "errors": 0}
    assert sum(data["histogram"]["counts"]) == due
    assert len(data["histogram"]["edges"]) == len(data["histogram"]["counts"]) + 1
    for spread in ("latency", "latency_all", "service_time", "lag"):
        assert list(data[spread]) == ["count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
        assert data[spread]["count"] == due
    assert len(service.requests) > due, "the warm-up is not measured"


def test_the_table_shows_rates_codes_and_percentiles(service: FakeService, molecules: Path) -> None:
    service.failures.extend([Failure(grpc.StatusCode.RESOURCE_EXHAUSTED)] * 3)
    result = run("--address", service.address, "--file", molecules, "--rate", 100, "--duration", 0.3, "--warmup", 0)
    assert result.exit_code == 0, result.output
    for expected in ("offered", "achieved", "3 RESOURCE_EXHAUSTED", "p99.9", "latency", "lag", "smiles version 10"):
        assert expected in result.stdout
    assert "running for" in result.stderr


def test_the_same_seed_makes_the_same_calls(service: FakeService, molecules: Path) -> None:
    sent = []
    for _ in range(2):
        service.requests.clear()
        run(
            "--address",
            service.address,
            "--file",
            molecules,
            "--rate",
            200,
            "--duration",
            0.2,
            "--warmup",
            0.1,
            "--batch",
            3,
        )
        sent.append(sorted(list(request.sequences) for request in service.requests))
    assert sent[0] == sent[1]


def test_a_closed_loop_says_what_it_cannot_tell(service: FakeService, molecules: Path) -> None:
    options = ["--concurrency", 2, "--duration", 0.2, "--warmup", 0]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 0, result.output
    assert "use --rate for latency" in result.stdout


def test_compressed_files_are_read(service: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "molecules.smi.xz"
    path.write_bytes(lzma.compress(MOLECULES.encode()))
    result = run("--address", service.address, "--file", path, "--rate", 50, "--duration", 0.1, "--warmup", 0.1)
    assert result.exit_code == 0, result.output
    assert {sequence for request in service.requests for sequence in request.sequences} <= {
        b"CCO",
        b"c1ccccc1",
        b"CC(=O)O",
    }


def test_a_test_in_which_no_call_succeeds_fails(service: FakeService, molecules: Path) -> None:
    service.hold = threading.Event()
    options = ["--rate", 50, "--duration", 0.2, "--warmup", 0, "--timeout", 0.2]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 1
    assert "DEADLINE_EXCEEDED" in result.stdout
    assert "no call succeeded" in result.stderr


def test_an_unreachable_server_is_named(molecules: Path) -> None:
    result = run("--address", "127.0.0.1:1", "--file", molecules, "--rate", 1)
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
    assert "birnn serve" in result.stderr


def test_an_unknown_encoder_lists_what_is_served(service: FakeService, molecules: Path) -> None:
    result = run("--address", service.address, "--file", molecules, "--rate", 1, "--encoder", "smile")
    assert result.exit_code == 1
    assert "text version 1" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --rate"),
        (["--rate", 1, "--concurrency", 1], "give either --rate"),
        (["--rate", 0], "--rate"),
        (["--rate", 1e9], "are more than the 5,000,000 calls"),
        (["--rate", 1, "--batch", 0], "--batch"),
        (["--rate", 1, "--address", "localhost"], "HOST:PORT"),
        (["--rate", 1, "--out", "missing/result.json"], "does not exist"),
    ],
)
def test_wrong_usage_is_explained(molecules: Path, options: list[object], message: str) -> None:
    result = run("--file", molecules, *options)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(("name", "message"), [("missing.smi", "missing.smi"), ("empty.smi", "holds no sequence")])
def test_a_file_without_sequences_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty.smi").write_text("\n\n")
    result = run("--file", tmp_path / name, "--rate", 1)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_result_that_is_the_input_is_refused(service: FakeService, molecules: Path) -> None:
    result = run("--address", service.address, "--file", molecules, "--rate", 10, "--out", molecules)
    assert result.exit_code == 2
    assert "are the same file" in result.output
    assert molecules.read_text() == MOLECULES


@pytest.mark.parametrize("option", ["--rate", "--duration", "--warmup", "--timeout"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(molecules: Path, option: str, value: str) -> None:
    result = run("--file", molecules, "--rate", 10, option, value)
    assert result.exit_code == 2
    assert "not a finite number" in result.output


def test_tables_are_read_as_birnn_encode_reads_them(service: FakeService, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("1;CCO\n2\n3;CC\n")
    options = ["--no-header", "--column", 2, "--delimiter", ";", "--rate", 50, "--duration", 0.2, "--warmup", 0]
    result = run("--address", service.address, "--file", table, *options)
    assert result.exit_code == 0, result.output
    assert "left out 1 malformed record: line 2: the record has 1 field" in result.output
    assert {sequence for request in service.requests for sequence in request.sequences} <= {b"CCO", b"CC"}
