"""`birnn loadtest` with real generator processes against a service whose answers are simple to predict."""

import json
import lzma
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from hdrh.histogram import HdrHistogram

from birnn_loadtest.command import loadtest
from tests.client.fake_service import Failure, FakeService
from tests.e2e.server_process import PATIENCE_SECONDS, until

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
    out, log = tmp_path / "result.json", tmp_path / "run.hlog"
    options = ["--rate", 100, "--batch", 2, "--duration", 1.5, "--warmup", 0.2, "--seed", 3, "--processes", 2]
    result = run("--address", service.address, "--file", molecules, *options, "--out", out, "--log", log)
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(out.read_text())
    assert data["schema_version"] == 2
    assert data["settings"] == {
        "address": service.address,
        "protocol": "encode",
        "tls": False,
        "encoders": ["smiles"],
        "batches": ["2"],
        "files": [f"{molecules} (3 sequences)"],
        "arrivals": "100 calls/s, poisson",
        "rate": 100,
        "in_flight": None,
        "duration": 1.5,
        "warmup": 0.2,
        "timeout": 10,
        "goodput": None,
        "seed": 3,
        "processes": 2,
        "connections": None,
        "max_in_flight": 10_000,
        "check": 20,
        "tolerance": 1e-4,
        "metrics": None,
    }
    assert data["encoders"][0]["version"] == "10"
    assert (data["server"], data["search"], data["server_metrics"], data["interrupted"]) == (None, None, None, False)
    figures = data["run"]
    due = figures["calls"]
    assert 100 < due < 220
    assert figures["codes"] == {"OK": due}
    assert figures["offered"] == {"calls": due / 1.5, "sequences": 2 * due / 1.5}
    assert (figures["sequences"], figures["failed"]) == (2 * due, 0)
    assert len(figures["generator_cpu"]) == 2
    for spread in ("latency", "latency_all", "service_time", "lag"):
        assert figures[spread]["count"] == due
        assert figures[spread]["p99.9"] is None, "too few calls tell nothing of p99.9"
        assert HdrHistogram.decode(figures[spread]["histogram"]).get_total_count() == due
    assert sum(interval["calls"] for interval in figures["intervals"]) == due
    assert [interval["start"] for interval in figures["intervals"]] == [0, 1]
    # 20 replies of 2 sequences were compared.
    assert (data["check"]["compared"], data["check"]["equal"]) == (40, 40)
    assert data["thresholds"] == [{"threshold": "errors>0%", "value": "0%", "failed": False}]
    # The warm-up is not measured.
    assert len(service.requests) > due + 40
    assert len([line for line in log.read_text().splitlines() if line[0].isdigit()]) == 2


def test_processes_send_together_what_one_would(service: FakeService, molecules: Path) -> None:
    sent = []
    for processes in (1, 3):
        service.requests.clear()
        options = ["--rate", 150, "--duration", 0.5, "--warmup", 0.1, "--batch", "1=2,3=1", "--check", 0]
        result = run("--address", service.address, "--file", molecules, *options, "--processes", processes)
        assert result.exit_code == 0, result.output
        sent.append(sorted(list(request.sequences) for request in service.requests))
    assert sent[0] == sent[1]
    assert {len(sequences) for sequences in sent[0]} == {1, 3}


def test_any_failed_call_fails_a_run_unless_a_threshold_allows_it(service: FakeService, molecules: Path) -> None:
    options = ["--rate", 200, "--duration", 0.5, "--warmup", 0, "--check", 0]
    for more, code in (([], 1), (["--fail-if", "errors>50%"], 0)):
        service.failures.extend([Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much work")] * 3)
        result = run("--address", service.address, "--file", molecules, *options, *more)
        assert result.exit_code == code, result.output
        assert "3 RESOURCE_EXHAUSTED" in result.stdout
        assert "RESOURCE_EXHAUSTED: too much work" in result.stdout
        assert ("failed: errors>0%" in result.stderr) == bool(code)


def test_thresholds_that_are_crossed_or_not_known_fail(service: FakeService, molecules: Path) -> None:
    options = ["--rate", 60, "--duration", 0.5, "--warmup", 0]
    thresholds = ["--fail-if", "p99.9>50ms", "--fail-if", "calls>1", "--fail-if", "mean>1min"]
    result = run("--address", service.address, "--file", molecules, *options, *thresholds)
    assert result.exit_code == 1
    assert "failed: p99.9>50ms: unknown" in result.stderr
    assert "failed: calls>1" in result.stderr
    assert "mean" not in result.stderr


def test_mixed_encoders_are_told_apart(service: FakeService, molecules: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two\n")
    options = ["--encoder", "smiles@2=3", "--encoder", "text", "--file", f"smiles={molecules}"]
    options += ["--file", f"text={tmp_path / 'text.txt'}", "--rate", "200", "--duration", "0.5", "--warmup", "0"]
    result = run("--address", service.address, *options)
    assert result.exit_code == 0, result.output
    assert "smiles x 1" in result.stdout
    assert "text x 1" in result.stdout
    found = {(request.encoder, request.version) for request in service.requests}
    assert found == {("smiles", "2"), ("text", "1")}
    texts = {sequence for request in service.requests if request.encoder == "text" for sequence in request.sequences}
    assert texts == {b"one two"}


def test_a_trace_is_replayed(service: FakeService, molecules: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("seconds,batch\n" + "".join(f"{100 + number / 10},{number % 3 + 1}\n" for number in range(30)))
    options = ["--trace", trace, "--speed", 10, "--warmup", 0, "--check", 0]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 0, result.output
    assert "30 due: 30 OK" in result.stdout
    assert sorted(len(request.sequences) for request in service.requests) == sorted([1, 2, 3] * 10)


def test_streams_carry_the_calls(service: FakeService, molecules: Path) -> None:
    service.failures.append(Failure(grpc.StatusCode.UNAVAILABLE, "not now"))
    options = ["--protocol", "stream", "--connections", 2, "--rate", 100, "--duration", 0.5, "--warmup", 0]
    result = run("--address", service.address, "--file", molecules, *options, "--fail-if", "errors>50%")
    assert result.exit_code == 0, result.output
    assert service.streams == 2
    assert "1 UNAVAILABLE" in result.stdout
    assert "UNAVAILABLE: not now" in result.stdout


def test_a_closed_loop_says_what_it_cannot_tell(service: FakeService, molecules: Path) -> None:
    options = ["--in-flight", 2, "--duration", 0.3, "--warmup", 0]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 0, result.output
    assert "closed loop: 2 callers" in result.stdout
    assert "use --rate for latency" in result.stdout


def test_replies_that_are_wrong_under_load_fail_the_run(service: FakeService, molecules: Path) -> None:
    service.drop_a_row = True
    options = ["--rate", 60, "--duration", 0.5, "--warmup", 0, "--batch", 2]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 1
    assert "vectors compared are wrong" in result.stderr


def test_the_search_ends_at_a_rate_that_is_confirmed(service: FakeService, molecules: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = [
        "--slo",
        "p90=10s",
        "--slo",
        "errors=20%",
        "--rate",
        40,
        "--max-rate",
        80,
        "--duration",
        1,
        "--warmup",
        0,
    ]
    result = run("--address", service.address, "--file", molecules, *options, "--out", out)
    data = json.loads(out.read_text())
    # A busy machine may make the generator late; then the search says so.
    assert result.exit_code in (0, 4), result.output
    search = data["search"]
    assert search["objectives"] == ["p90=10s", "errors=20%"]
    assert [step["rate"] for step in search["steps"]][:2] == [40, 80]
    if result.exit_code == 0:
        assert (search["capacity"]["rate"], search["capacity"]["confirmed"]) == (80, True)
        assert search["steps"][-1]["confirming"]
        assert search["steps"][-1]["seconds"] == 2
        assert "at least 80 calls/s" in result.stdout


def test_a_search_that_finds_nothing_fails(service: FakeService, molecules: Path) -> None:
    service.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 100_000)
    options = ["--slo", "errors=20%", "--rate", 50, "--duration", 1, "--warmup", 0, "--check", 0]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 1, result.output
    assert "not even" in result.stdout


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_an_interrupted_test_still_tells_and_writes_its_result(
    service: FakeService, molecules: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    out, hold = tmp_path / "result.json", len(signals) > 1
    if hold:
        service.hold = threading.Event()
    command = [sys.executable, "-m", "birnn", "loadtest", "--address", service.address, "--file", str(molecules)]
    command += ["--rate", "50", "--duration", "3600", "--warmup", "0", "--timeout", "1000", "--out", str(out)]
    # A group of its own, as of a shell's foreground job, so that all processes get the signal.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until(lambda: service.attempts >= 8)
        for number in signals:
            os.killpg(process.pid, number) if number is signal.SIGINT else process.send_signal(number)
            if hold:
                # Calls that are under way never end by themselves.
                attempts = 0
                while attempts != service.attempts:
                    attempts = service.attempts
                    threading.Event().wait(0.5)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, stderr
    assert "ENDED EARLY" in stdout
    assert "Traceback" not in stderr
    data = json.loads(out.read_text())
    assert data["interrupted"]
    assert data["run"]["calls"] >= 8
    assert ("GIVEN_UP" in data["run"]["codes"]) == hold


def test_generators_do_not_outlive_the_command(service: FakeService, molecules: Path) -> None:
    command = [sys.executable, "-m", "birnn", "loadtest", "--address", service.address, "--file", str(molecules)]
    process = subprocess.Popen([*command, "--rate", "50", "--duration", "3600"], stderr=subprocess.PIPE)
    until(lambda: service.attempts >= 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.communicate()
        pytest.skip("this system does not list the children of a process")
    workers = [int(child) for child in children.read_text().split()]
    process.kill()
    process.communicate()
    until(lambda: not any(_runs(worker) for worker in workers))


def _runs(process: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_test_in_which_no_call_succeeds_fails(service: FakeService, molecules: Path) -> None:
    service.hold = threading.Event()
    options = ["--rate", 50, "--duration", 0.2, "--warmup", 0, "--timeout", 0.2]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 1
    assert "DEADLINE_EXCEEDED" in result.stdout
    assert "failed: errors>0%: 100%" in result.stderr


def test_an_unreachable_server_is_named(molecules: Path) -> None:
    result = run("--address", "127.0.0.1:1", "--file", molecules, "--rate", 1)
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr
    assert "birnn serve" in result.stderr


def test_metrics_that_cannot_be_read_end_the_test_before_it_begins(service: FakeService, molecules: Path) -> None:
    options = ["--rate", 1, "--metrics", "http://127.0.0.1:1/metrics"]
    result = run("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 3
    assert "http://127.0.0.1:1/metrics: cannot be read" in result.stderr
    assert service.attempts == 0


def test_an_unknown_encoder_lists_what_is_served(service: FakeService, molecules: Path) -> None:
    result = run("--address", service.address, "--file", molecules, "--rate", 1, "--encoder", "smile")
    assert result.exit_code == 3
    assert "text version 1" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --rate"),
        (["--rate", 1, "--in-flight", 1], "give one of --rate"),
        (["--rate", 0], "--rate"),
        (["--rate", 2e5], "at most 100,000 calls/s"),
        (["--rate", "5..x"], "10..200 for a ramp"),
        (["--rate", 1, "--batch", 0], "--batch"),
        (["--rate", 1, "--address", "localhost"], "HOST:PORT"),
        (["--rate", 1, "--out", "missing/result.json"], "does not exist"),
        (["--rate", 1, "--burstiness", 2], "--arrivals gamma"),
        (["--rate", 1, "--speed", 2], "--trace"),
        (["--rate", 1, "--max-rate", 2], "--slo"),
        (["--rate", "1..2", "--slo", "p99=1ms"], "not with a ramp"),
        (["--in-flight", 1, "--slo", "p99=1ms"], "--slo searches a rate"),
        (["--in-flight", 1, "--arrivals", "gamma"], "--arrivals goes with"),
        (["--in-flight", 1, "--processes", 2], "--processes must not exceed"),
        (["--slo", "p99=20"], "write a number and a unit"),
        (["--rate", 1, "--fail-if", "p99=20ms"], "write METRIC>LIMIT"),
        (["--rate", 1, "--fail-if", "goodput<99%"], "--goodput DURATION"),
        (["--rate", 1, "--fail-if", "wrong>0", "--check", 0], "--check above 0"),
        (["--rate", 1, "--confidence", "10%"], "--confidence"),
        (["--rate", 1, "--metrics", "localhost:8002"], "must be a URL"),
        (["--rate", 1, "--metrics-token", "x"], "goes with --metrics"),
    ],
)
def test_wrong_usage_is_explained(molecules: Path, options: list[object], message: str) -> None:
    result = run("--file", molecules, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(("name", "message"), [("missing.smi", "missing.smi"), ("empty.smi", "holds no sequence")])
def test_a_file_without_sequences_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty.smi").write_text("\n\n")
    result = run("--file", tmp_path / name, "--rate", 1)
    assert result.exit_code == 3
    assert message in result.stderr


@pytest.mark.parametrize("prefix", ["", "smiles="])
def test_a_result_that_is_the_input_is_refused(service: FakeService, molecules: Path, prefix: str) -> None:
    result = run("--address", service.address, "--file", f"{prefix}{molecules}", "--rate", 10, "--out", molecules)
    assert result.exit_code == 2
    assert "are the same file" in result.output
    assert molecules.read_text() == MOLECULES


@pytest.mark.parametrize("option", ["--rate", "--duration", "--warmup", "--timeout"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_are_finite(molecules: Path, option: str, value: str) -> None:
    result = run("--file", molecules, "--rate", 10, option, value)
    assert result.exit_code == 2
    assert "not a" in result.output


def test_compressed_files_and_tables_are_read_as_birnn_encode_reads_them(service: FakeService, tmp_path: Path) -> None:
    packed, table = tmp_path / "molecules.smi.xz", tmp_path / "table.csv"
    packed.write_bytes(lzma.compress(MOLECULES.encode()))
    table.write_text("1;CCO\n2\n3;CC\n")
    reading = ["--no-header", "--column", 2, "--delimiter", ";"]
    for path, more, sequences in (
        (packed, [], {b"CCO", b"c1ccccc1", b"CC(=O)O"}),
        (table, reading, {b"CCO", b"CC"}),
    ):
        service.requests.clear()
        result = run(
            "--address", service.address, "--file", path, *more, "--rate", 80, "--duration", 0.3, "--warmup", 0
        )
        assert result.exit_code == 0, result.output
        assert {sequence for request in service.requests for sequence in request.sequences} <= sequences
    assert "left out 1 malformed record: line 2: the record has 1 field" in result.output
