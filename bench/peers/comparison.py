"""Servers one after the other under the same loads."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import grpc
import numpy as np
from numpy.typing import NDArray

from bench.callers import HTTP, Method, infer_request, run_callers
from bench.h2load import H2Load
from bench.loads import LOADS, Load, Sample
from bench.machine import on_cores
from bench.peers.bare import bare_runs
from bench.peers.cpu import CpuMeter
from bench.peers.observation import (
    MICROSECONDS,
    PartsAlone,
    own_counters,
    own_shares,
    rows_of_batches,
)
from bench.peers.ours import precision_of
from bench.peers.perf_analyzer import PerfAnalyzer
from bench.peers.records import Phase, Record, Records, best_settings
from bench.peers.served.onnx_encoder import OnnxEncoder
from bench.peers.server import Command, Server, Setting, running
from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_bundle.bundle import Bundle

BARE = "session.run, no server"
# Of every encoding to the bare graph's; ours may be asked for half precision.
MIN_COSINE = 0.9999
SEARCH_SECONDS, SEARCH_WARMUP = 2.0, 0.5
WARMUP_LOAD = Load("warm-up", 8, 4)
WARMUP_SECONDS = 1.0
ASYNCIO = "asyncio"
# Load generators besides perf_analyzer and `ASYNCIO`, which call Open Inference over gRPC, and what they call.
CALLS: dict[str, Method] = {
    "asyncio, Encode": "encode",
    "asyncio, EncodeStream": "stream",
    "asyncio, Open Inference REST": "rest",
    "asyncio, OpenAI": "openai",
}
# The front end alone: nothing to encode; and one message over and over, which ours computes once for all in flight.
FRONT = Load("front", 1, 64)
EMPTY, REPEATED = "h2load, ModelReady", "h2load, one ModelInfer"
SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all servers of a comparison have in common.

    Attributes:
        bundle: The graph and tokenizer served.
        sequences: What the callers send, in a shuffled order.
        server_cores, client_cores: Processors of servers and of load generators.
        records: Where results go.
        perf_analyzer: The C++ generator; None where it is not wanted.
        asyncio: Whether to use our own generator.
        h2load: The one for the front end alone; None where it is not wanted or not installed.
        window: Seconds of a third of a measurement.
        scratch: Folder for everything that may be thrown away.
    """

    bundle: Bundle
    sequences: Sequence[str]
    server_cores: Sequence[int]
    client_cores: Sequence[int]
    records: Records
    perf_analyzer: PerfAnalyzer | None
    asyncio: bool
    h2load: H2Load | None
    window: float
    scratch: Path
    parts: PartsAlone = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", PartsAlone(self.bundle, self.sequences))

    def search(self, servers: Sequence[Server], loads: Sequence[Load], every: int = 1) -> None:
        """Measure every candidate (or only every third, say) of servers that have several, under every load."""
        for server in servers:
            candidates = server.candidates(len(self.server_cores))[::every]
            for number, settings in enumerate(candidates, 1):
                click.echo(f"search: {server.name} {number}/{len(candidates)} {dict(settings)}", err=True)
                self._measure("search", number, server, dict(settings), loads, self._generators[-1:])

    def rounds(self, count: int, servers: Sequence[Server], loads: Sequence[Load]) -> None:
        """Measure all servers in turn, `count` times, every other time in reverse, each with its best settings."""
        for number in range(self.records.next_round(), self.records.next_round() + count):
            if any(load.in_flight == 1 for load in loads):
                self._measure_bare(number)
            for server in servers if number % 2 else list(reversed(servers)):
                self._with_best("round", number, server, loads, self._generators)

    def sweep(self, servers: Sequence[Server], loads: Sequence[Load]) -> None:
        """Measure all servers once under each of many loads, with their best settings for the nearest load searched."""
        for server in servers:
            self._with_best("sweep", 1, server, loads, self._generators[:1])

    @property
    def _generators(self) -> list[str]:
        return ["perf_analyzer"] * (self.perf_analyzer is not None) + [ASYNCIO] * self.asyncio

    def _with_best(
        self, phase: Phase, number: int, server: Server, loads: Sequence[Load], generators: Sequence[str]
    ) -> None:
        """Measure a server under each load with the best settings for it, started once for loads that share theirs."""
        groups: list[tuple[dict[str, Setting], list[Load]]] = []
        for load in loads:
            settings = self._best(server, load)
            if group := next((group for known, group in groups if known == settings), None):
                group.append(load)
            else:
                groups.append((settings, [load]))
        for settings, group in groups:
            click.echo(f"{phase} {number}: {server.name} {settings or ''} {', '.join(map(str, group))}", err=True)
            self._measure(phase, number, server, settings, group, generators)

    def _best(self, server: Server, load: Load) -> dict[str, Setting]:
        candidates = server.candidates(len(self.server_cores))
        if len(candidates) == 1:
            return dict(candidates[0])
        found = best_settings(self.records.all()).get(server.name)
        if not found:
            raise click.ClickException(f"no settings were searched for {server.name}; run the search first")
        return found[nearest(load, [known for name, known in LOADS.items() if name in found]).name]

    def _measure(
        self,
        phase: Phase,
        number: int,
        server: Server,
        settings: dict[str, Setting],
        loads: Sequence[Load],
        generators: Sequence[str],
    ) -> None:
        """Start a server and record it under every load; a server or run that fails is recorded as such."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            command = server.prepare(self.bundle, settings, len(self.server_cores), Path(folder))
            line = " ".join(command.arguments)
            runs = [(load, generator) for load in loads for generator in generators]
            if phase == "round":
                runs += self._further_runs(command, loads)

            def record(
                load: Load, generator: str, sample: Sample | None, error: str | None, facts: dict[str, float]
            ) -> None:
                self.records.add(
                    Record(phase, number, server.name, load, generator, settings, sample, error, line, facts)
                )

            try:
                with self._running(command, Path(folder) / "server.log") as pid:
                    for load, generator in runs:
                        try:
                            sample, facts = self._observe(phase, generator, load, command, pid)
                        except click.ClickException as error:
                            click.echo(f"  {load}, {generator}: {error.message}", err=True)
                            record(load, generator, None, error.message, {})
                            continue
                        click.echo(f"  {load}, {generator}: {describe(sample)}", err=True)
                        record(load, generator, sample, None, facts)
            except click.ClickException as error:
                click.echo(f"  {server.name}: {error.message}", err=True)
                record(loads[0], generators[0], None, error.message, {})

    def _further_runs(self, command: Command, loads: Sequence[Load]) -> list[tuple[Load, str]]:
        """What is measured of a server besides Open Inference over gRPC."""
        runs: list[tuple[Load, str]] = []
        if self.asyncio:
            runs += [(load, name) for load in loads for name, method in CALLS.items() if method in command.calls]
        if self.h2load is not None:
            runs.append((FRONT, EMPTY))
            if command.metrics is not None:
                runs.append((FRONT, REPEATED))
        return runs

    def _observe(
        self, phase: Phase, generator: str, load: Load, command: Command, pid: int
    ) -> tuple[Sample, dict[str, float]]:
        """Put a load on a running server; what the callers saw, and what else is to be known: see `Record`."""
        before = own_counters(command)
        with CpuMeter(pid) as meter:
            sample = self._generate(phase, generator, load, command)
        spent = meter.between(sample.begin, sample.begin + sample.seconds)
        facts = {
            "other_cores": spent.others / sample.seconds,
            "server_cores": spent.server / sample.seconds,
            "client_cores": spent.clients / sample.seconds,
            "server_us": MICROSECONDS * spent.server / (sample.calls_per_second * sample.seconds),
        }
        if command.metrics is not None:
            after = own_counters(command)
            facts |= own_shares(before, after)
            if phase == "round" and generator not in (EMPTY, REPEATED):
                rows, precision = rows_of_batches(before, after), precision_of(command.arguments)
                facts |= {"batch_rows": rows, **self.parts.costs(load, rows, precision)}
        return sample, facts

    @contextmanager
    def _running(self, command: Command, log: Path) -> Iterator[int]:
        """A server that is warm and has been seen to give the right answer; its process number."""
        model = self.bundle.manifest.name
        with running(command, model, on_cores(self.server_cores), log) as pid:
            self._check(command.address, model)
            self._call("infer", WARMUP_LOAD, command.address, WARMUP_SECONDS, 0.0)
            yield pid

    def _check(self, address: str, model: str) -> None:
        """Compare a server's encodings with the bare graph's: what is fast must be right."""
        sequences = self.sequences[:16]
        expected = OnnxEncoder(self.bundle.path).encode([sequence.encode() for sequence in sequences])
        with grpc.insecure_channel(address) as channel:
            try:
                reply = GRPCInferenceServiceStub(channel).ModelInfer(infer_request(model, sequences), timeout=30)
            except grpc.RpcError as error:
                raise click.ClickException(f"the server does not encode: {error}") from error
        found = np.frombuffer(reply.raw_output_contents[0], dtype="<f4").reshape(reply.outputs[0].shape)
        if found.shape != expected.shape or not (_cosines(found, expected) >= MIN_COSINE).all():
            raise click.ClickException("the server's encodings are not those of the graph")

    def _generate(self, phase: Phase, generator: str, load: Load, command: Command) -> Sample:
        # As long as perf_analyzer's three windows.
        seconds, warmup = 3 * self.window, self.window / 3
        if generator in (EMPTY, REPEATED):
            return self._repeat(generator, command.address, seconds, warmup)
        if generator == ASYNCIO and phase == "search":
            return self._call("infer", load, command.address, SEARCH_SECONDS, SEARCH_WARMUP)
        if generator == ASYNCIO or generator in CALLS:
            method = CALLS.get(generator, "infer")
            address = command.http if method in HTTP else command.address
            assert address is not None
            return self._call(method, load, address, seconds, warmup)
        assert self.perf_analyzer is not None
        return self.perf_analyzer.run(
            load,
            self.bundle.manifest.name,
            command.address,
            self.sequences,
            window=self.window,
            prefix=on_cores(self.client_cores),
            scratch=self.scratch / "perf_analyzer",
        )

    def _repeat(self, generator: str, address: str, seconds: float, warmup: float) -> Sample:
        assert self.h2load is not None
        model = self.bundle.manifest.name
        empty = generator == EMPTY
        message = pb.ModelReadyRequest(name=model) if empty else infer_request(model, self.sequences[:1])
        return self.h2load.run(
            address,
            SERVICE + ("ModelReady" if empty else "ModelInfer"),
            message,
            FRONT.in_flight,
            seconds=seconds,
            warmup=warmup,
            prefix=on_cores(self.client_cores),
            scratch=self.scratch / "h2load",
        )

    def _call(self, method: Method, load: Load, address: str, seconds: float, warmup: float) -> Sample:
        return run_callers(
            address,
            method,
            self.bundle.manifest.name,
            load,
            self.sequences,
            seconds=seconds,
            warmup=warmup,
            prefix=on_cores(self.client_cores),
            scratch=self.scratch,
        )

    def _measure_bare(self, number: int) -> None:
        encoder = OnnxEncoder(self.bundle.path)
        sample = bare_runs(encoder, self.sequences[:1000], 3 * self.window)
        click.echo(f"round {number}: {BARE}: {describe(sample)}", err=True)
        self.records.add(Record("round", number, BARE, Load("lone", 1, 1), "in process", {}, sample))


def nearest(load: Load, known: Sequence[Load]) -> Load:
    """Of known loads the one most like `load`: the size of a call counts first, then how many are in flight."""
    return min(
        known,
        key=lambda other: (abs(math.log(other.batch / load.batch)), abs(math.log(other.in_flight / load.in_flight))),
    )


def describe(sample: Sample) -> str:
    """A sample in a line."""
    p50, p99 = 1000 * sample.p50, 1000 * sample.p99
    return f"{sample.sequences_per_second:,.0f} sequences/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def _cosines(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(axis=1) / norms, dtype=np.float64)
