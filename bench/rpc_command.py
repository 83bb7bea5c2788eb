"""`python -m bench rpc`: what a call costs with an engine that costs nothing, and what an empty health check costs."""

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.callers import Method, run_callers
from bench.encoders import MAX_LENGTH, random_bundle
from bench.loads import Load, Sample
from bench.machine import PYTHONPATH, ROOT, on_cores
from bench.markdown import table
from bench.peers.observation import own_counters
from bench.peers.perf_analyzer import PerfAnalyzer
from bench.peers.records import medians
from bench.peers.server import Command, free_port, running
from bench.results import OUT, QUICK, write_result
from bench.sequences import OPTION, read_sequences
from birnn_bundle.smiles import SmilesTokenizer

CALLS: dict[Method, str] = {
    "health": "grpc.health.v1.Health/Check",
    "infer": "inference.GRPCInferenceService/ModelInfer",
    "encode": "birnn.v1.EncoderService/Encode",
    "stream": "birnn.v1.EncoderService/EncodeStream",
}
LOADS = [Load("lone", 1, 1), Load("many", 1, 64), Load("bulk", 32, 8)]


@click.command()
@OPTION
@OUT
@QUICK
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=3.0, show_default=True, help="Of a load in a round.")
@click.option("--perf-analyzer", is_flag=True, help="Drive ModelInfer with perf_analyzer too (see bench-peers).")
def rpc(file: Path, out: Path, quick: bool, rounds: int, seconds: float, perf_analyzer: bool) -> None:
    """Calls per second of the front end alone, one server process on one core, callers on the others."""
    if quick:
        rounds, seconds = 1, 1.0
    bundle = random_bundle((ROOT / "build" / "bench" / "models").resolve(), "bigru", 1)
    assert isinstance(bundle.tokenizer, SmilesTokenizer)
    sequences, _ = read_sequences(file, bundle.tokenizer, MAX_LENGTH)
    analyzer = PerfAnalyzer.install() if perf_analyzer else None
    cores = sorted(os.sched_getaffinity(0))
    server, callers = cores[:1], cores[1:] or cores
    with tempfile.TemporaryDirectory(prefix="birnn-bench-") as folder:
        scratch = Path(folder)
        place = scratch / "models" / bundle.manifest.name
        place.mkdir(parents=True)
        (place / "1").symlink_to(bundle.path)
        command = _command(scratch / "models")
        with running(command, bundle.manifest.name, on_cores(server), scratch / "server.log"):
            rows = measure(command, bundle.manifest.name, sequences, callers, rounds, seconds, analyzer, scratch)
    result = {"server_cores": server, "caller_cores": callers, "rounds": rounds, "seconds": seconds, "rows": rows}
    write_result(out, "rpc", result, render)


def _command(models: Path) -> Command:
    port, metrics = free_port(), free_port()
    arguments = [sys.executable, "-m", "bench.idle_server", "--models", str(models), "--device", "cpu"]
    # Its encodings are zeros, which a health check by a forward pass would rightly refuse.
    arguments += ["--grpc-port", str(port), "--metrics-port", str(metrics), "--health-seconds", "86400"]
    return Command(arguments, f"127.0.0.1:{port}", {"PYTHONPATH": PYTHONPATH}, f"http://127.0.0.1:{metrics}/metrics")


def measure(
    command: Command,
    model: str,
    sequences: Sequence[str],
    cores: Sequence[int],
    rounds: int,
    seconds: float,
    analyzer: PerfAnalyzer | None,
    scratch: Path,
) -> list[dict[str, Any]]:
    """Medians over rounds of every call under every load."""
    samples: dict[tuple[Method, Load, str], list[Sample]] = {}
    costs: dict[tuple[Method, Load, str], list[float]] = {}
    address = command.address
    for _ in range(rounds):
        for method in CALLS:
            for load in LOADS if method != "health" else LOADS[:2]:
                before = own_counters(command)
                sample = run_callers(
                    address,
                    method,
                    model,
                    load,
                    sequences,
                    seconds=seconds,
                    warmup=seconds / 5,
                    prefix=on_cores(cores),
                    scratch=scratch,
                )
                cost = _seconds_a_call(before, own_counters(command))
                samples.setdefault((method, load, "asyncio"), []).append(sample)
                costs.setdefault((method, load, "asyncio"), []).append(cost)
                if method == "infer" and analyzer is not None:
                    sample = analyzer.run(
                        load, model, address, sequences, window=seconds / 3, prefix=on_cores(cores), scratch=scratch
                    )
                    samples.setdefault((method, load, "perf_analyzer"), []).append(sample)
    rows = []
    for (method, load, generator), taken in samples.items():
        middle = medians(taken)
        assert middle is not None
        cost = median(costs.get((method, load, generator), [math.nan]))
        rows.append(
            {"call": CALLS[method], "load": asdict(load), "generator": generator, "cpu": cost, **asdict(middle)}
        )
    return rows


def _seconds_a_call(before: dict[str, float], after: dict[str, float]) -> float:
    """CPU seconds of the server for each call between two readings of its counters."""

    def risen(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    return risen("process_cpu_seconds_total") / max(1.0, risen("birnn_requests_total"))


def render(result: dict[str, Any]) -> str:
    """The table."""
    rows = []
    for row in result["rows"]:
        load = Load(**row["load"])
        text = f"{load.in_flight} in flight" if "health" in row["call"] else str(load)
        sequences = "" if "health" in row["call"] else f"{row['sequences_per_second']:,.0f}"
        rate = f"{row['calls_per_second']:,.0f}"
        latency = [f"{1000 * row['p50']:.2f}", f"{1000 * row['p99']:.2f}"]
        cpu = "" if math.isnan(row["cpu"]) else f"{1e6 * row['cpu']:.0f}"
        rows.append([row["call"], text, row["generator"], rate, sequences, *latency, cpu])
    return "\n\n".join(
        [
            "# The front end alone",
            "The real server with an engine that answers zeros at once (`bench/idle_server.py`): gRPC, tokenizer, "
            f"batcher and replies remain. Server on core {result['server_cores']}, callers in a process of their own "
            f"on {result['caller_cores']}; medians of {result['rounds']} rounds. EncodeStream is one "
            "stream. Where the asyncio callers drive it, "
            "their own cost is a bound too.",
            table(["call", "load", "callers", "calls/s", "sequences/s", "p50 ms", "p99 ms", "server µs a call"], rows),
        ]
    )
